"""The program: the server of a session, or the full command line.

It is chosen while this module is imported: the launcher of the archive tells damaged modules by that import.
"""

from __future__ import annotations

import sys

if sys.argv[1:2] == ["mcp"]:
    from claudemesh.cli.mcp.start import main
else:
    from claudemesh.cli.main import main

__all__ = ["main"]
