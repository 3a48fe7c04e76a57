"""The mesh that commands use when none is given: CLAUDEMESH_MESH, or the choice of `claudemesh mesh use`."""

from __future__ import annotations

import os
from collections.abc import Collection

from claudemesh.home.paths import current_mesh_file

VARIABLE = "CLAUDEMESH_MESH"
_LONGEST = 64


def from_environment() -> str | None:
    """Return the mesh that CLAUDEMESH_MESH names, None when it is empty or not set."""
    return os.environ.get(VARIABLE) or None


def chosen(known: Collection[str]) -> str | None:
    """Return the mesh that `mesh use` has chosen. A mesh that this host has left is no choice."""
    path = current_mesh_file()
    if not path.exists():
        return None
    # Imported here: most hosts are in one mesh and have no such file.
    from claudemesh.runtime.files import read_own

    slug = read_own(path, _LONGEST).decode(errors="replace").strip()
    return slug if slug in known else None


def choose(slug: str) -> None:
    """Keep the choice. The home exists: this host has joined the mesh."""
    # Imported here: only `mesh use` writes.
    from claudemesh.runtime.files import write_atomic

    write_atomic(current_mesh_file(), f"{slug}\n".encode())
