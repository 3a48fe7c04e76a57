"""Fast path of `claudemesh mcp`: the server without the command line.

Each session of an agent has such a process, and waits for its first answer. click and the tree of commands
would take more memory and time than all of the server. Arguments that are not plain are left to the full
command line before anything is read or written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from claudemesh.cli.mcp.server import serve

_OPTION = "--mesh"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve `mcp [--mesh MESH]` and end the process, or run the full command line. Return its exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    mesh = _mesh_of(argv[1:])
    if mesh is not None and "_CLAUDEMESH_COMPLETE" not in os.environ and _has_streams():
        serve(mesh or None)
    # Imported here: a plain server does without it.
    from claudemesh.cli.main import main as full

    return full(argv)


def _mesh_of(options: Sequence[str]) -> str | None:
    """Return the mesh that is named, "" without one, None for other arguments."""
    if not options:
        return ""
    name, is_joined, value = options[0].partition("=")
    rest = [value] if is_joined else list(options[1:2])
    is_plain = name == _OPTION and len(options) == (1 if is_joined else 2)
    return rest[0] if is_plain and rest[0] and not rest[0].startswith("-") else None


def _has_streams() -> bool:
    """Whether the standard streams are open, and the directory exists."""
    with suppress(OSError):
        os.getcwd()  # noqa: PTH109
        return None not in (sys.stdin, sys.stdout, sys.stderr)
    return False
