"""The programs that the cases start: the archive, and clients as npm has installed them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
ARCHIVE: Final = ROOT / "dist" / "claudemesh.pyz"
_MODULES: Final = ROOT / ".clients" / "node_modules"


def version_of(*command: Path) -> str:
    """Return the version that a program prints."""
    return subprocess.run([*command, "--version"], capture_output=True, text=True).stdout.strip()


def claude_program(package: str) -> Path | None:
    """Return Claude Code of a package, None when it is not installed."""
    folder = _MODULES if package == "claude-code" else _MODULES / package / "node_modules"
    return _first(folder, "@anthropic-ai/claude-code-*/claude")


def codex_program() -> Path | None:
    """Return the program of Codex, None when it is not installed."""
    return _first(_MODULES, "@openai/codex-*/vendor/*/bin/codex")


def node_program() -> Path | None:
    """Return the Node that newer clients need, which may be newer than that of the system."""
    return _first(_MODULES, "node-*/bin/node")


def script(path: str) -> Path | None:
    """Return a script of a package, None when it is not installed."""
    return _first(_MODULES, path)


def _first(folder: Path, pattern: str) -> Path | None:
    return next(iter(sorted(folder.glob(pattern))), None)
