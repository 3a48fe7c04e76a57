"""claudemesh.pyz as a command."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path


def archive_command(archive: Path) -> list[str]:
    """Return the command of an archive, with the options of its first line."""
    with archive.open("rb") as file:
        options = file.readline().decode().partition("python3")[2].split()
    return [base_python(), *options, str(archive)]


@cache
def base_python() -> str:
    """The interpreter itself, past a shim of a version manager."""
    code = "import sys; print(sys.executable)"
    return subprocess.check_output(["python3", "-c", code], text=True).strip()
