"""Which meshes this host is in, from the folders under CLAUDEMESH_HOME."""

from __future__ import annotations

import os
from pathlib import Path

from claudemesh.client.errors import WrongHome


def home() -> Path:
    """Return `$CLAUDEMESH_HOME`, or `~/.claudemesh`."""
    chosen = os.environ.get("CLAUDEMESH_HOME")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".claudemesh"


def meshes() -> list[str]:
    """Return the slugs of the meshes that this host has joined."""
    try:
        entries = sorted((home() / "daemon").iterdir())
    except FileNotFoundError:
        return []
    return [entry.name for entry in entries if (entry / "membership.json").exists()]


def choose_mesh(slug: str | None) -> str:
    """Return the mesh that is meant; with one mesh it need not be named. `WrongHome` says what to do."""
    known = meshes()
    if slug is not None:
        if slug in known:
            return slug
        listed = f"; it is in {', '.join(known)}" if known else ""
        raise WrongHome("unknown_mesh", f"This host is not in mesh {slug!r}{listed}: join it first.")
    if len(known) == 1:
        return known[0]
    if not known:
        raise WrongHome(
            "no_mesh",
            "This host is in no mesh yet: `claudemesh join LINK`, or `claudemesh mesh create SLUG`.",
        )
    raise WrongHome(
        "which_mesh", f"This host is in several meshes: choose one with --mesh ({', '.join(known)})."
    )


def socket_path(slug: str) -> Path:
    """Return where a mesh's daemon answers."""
    return home() / "daemon" / slug / "sock"
