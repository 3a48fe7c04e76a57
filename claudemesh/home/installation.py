"""Facts about the installation that runs: its commit, and how it came to this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import claudemesh
from claudemesh.home.environment import detect_environment

_PACKAGE = Path(claudemesh.__file__).resolve().parent
# The launcher of the archive writes this file beside the folder that it unpacks to.
_UNPACKED = ".complete"
_INSTALLED = ("site-packages", "dist-packages")


def commit() -> str | None:
    """Return the commit that a build has noted in the package, with `+changes` when files differed from it.

    It is None for a checkout and for a package that was installed from one.
    """
    try:
        noted = json.loads((_PACKAGE / "build.json").read_text())["commit"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return noted if isinstance(noted, str) else None


def installed_as(package: Path = _PACKAGE) -> str:
    """Return `container`, `file` (claudemesh.pyz), `package` (of pip, pipx or uv) or `checkout`."""
    place = package.parent
    if (place.parent / _UNPACKED).is_file():
        return "container" if detect_environment(os.environ) == "container" else "file"
    return "package" if place.name in _INSTALLED else "checkout"
