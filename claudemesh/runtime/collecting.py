"""The garbage collector: its passes stop every thread, so they must be short."""

from __future__ import annotations

import gc


def settle() -> None:
    """Leave what exists after a start out of every later pass: modules, classes and settings stay anyhow.

    A full pass over them takes 20 ms, and one is made whenever enough new objects have lived for a while.
    """
    gc.collect()
    gc.freeze()
