"""Versions of installed clients."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Final

_LIMIT_S: Final = 20
_VERSION: Final = re.compile(r"\d+\.\d+\.\d+")


def version_of(program: str) -> tuple[int, ...] | None:
    """Return the version that a program on the path prints, None without one."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        ran = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(ran.stdout)
    return None if match is None else tuple(int(part) for part in match[0].split("."))
