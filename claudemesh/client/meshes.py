"""Meshes of this host, and the socket of each daemon."""

from __future__ import annotations

import os
from pathlib import Path

from claudemesh.client import current_mesh
from claudemesh.client.errors import WrongHome
from claudemesh.home.paths import daemon_paths, daemons_dir
from claudemesh.runtime.trust import distrust, distrust_socket


def meshes() -> list[str]:
    """Return the slugs of the meshes that this host has joined."""
    try:
        entries = sorted(daemons_dir().iterdir())
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise WrongHome(
            "unsafe_home",
            f"{error.filename} cannot be read by this user: run this as its owner, or set CLAUDEMESH_HOME "
            "to a folder of your own.",
        ) from error
    return [entry.name for entry in entries if daemon_paths(entry.name).membership.exists()]


def choose_mesh(slug: str | None) -> str:
    """Return the mesh that is meant. `WrongHome` says what to do.

    The given one comes first, then CLAUDEMESH_MESH, then the choice of `claudemesh mesh use`, and then the
    only mesh of this host.
    """
    known = meshes()
    named = slug or current_mesh.from_environment()
    if named is not None:
        if named in known:
            return named
        raise _unknown(named, known, from_environment=slug is None)
    if len(known) == 1:
        return known[0]
    if not known:
        raise WrongHome(
            "no_mesh",
            "This host is in no mesh yet. Join one by an invite (`claudemesh join LINK`), or start one here.",
            next="claudemesh up -d --with-broker",
        )
    current = current_mesh.chosen(known)
    if current is not None:
        return current
    raise WrongHome(
        "which_mesh",
        f"This host is in several meshes ({', '.join(known)}). Choose one with --mesh, with "
        f"{current_mesh.VARIABLE}, or for all commands to come with `claudemesh mesh use`.",
        next=f"claudemesh mesh use {known[0]}",
    )


def _unknown(slug: str, known: list[str], *, from_environment: bool) -> WrongHome:
    origin = f" ({current_mesh.VARIABLE})" if from_environment else ""
    listed = f" It is in {', '.join(known)}." if known else ""
    text = f"This host is not in mesh {slug!r}{origin}.{listed} Join it first."
    # Imported here: most commands have no wrong name.
    from difflib import get_close_matches

    near = get_close_matches(slug, known)
    return WrongHome("unknown_mesh", text, near=near, next="claudemesh mesh list")


def socket_path(slug: str) -> Path:
    """Return the socket of a mesh's daemon. `WrongHome` when another user could answer on it."""
    paths = daemon_paths(slug)
    reason = distrust(os.fspath(paths.root))
    if reason is not None:
        raise WrongHome("unsafe_home", f"{reason}; nothing was sent.")
    return check_socket(paths.sock)


def check_socket(path: Path) -> Path:
    """Return the path of a socket. `WrongHome` when another user could answer on it; a missing one passes."""
    try:
        reason = distrust_socket(os.fspath(path))
    except FileNotFoundError:
        return path
    if reason is not None:
        raise WrongHome("unsafe_home", f"{reason}.")
    return path
