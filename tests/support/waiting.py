"""The limit on a wait for something that comes.

A limit only ends a test that hangs, so it is as long as a slow and busy machine may ever need. A test that
passes never waits for it.
"""

from __future__ import annotations

WAIT_S = 120.0
