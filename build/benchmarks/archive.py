"""claudemesh.pyz as a command."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

_BUILD = Path(__file__).parents[1] / "build_pyz.py"


def refresh_archive() -> None:
    """Build dist/claudemesh.pyz of this tree, unless it is up to date: an older one has other figures."""
    if subprocess.run([sys.executable, str(_BUILD)], stdout=sys.stderr).returncode:
        raise SystemExit("dist/claudemesh.pyz cannot be built; the errors stand above.")


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
