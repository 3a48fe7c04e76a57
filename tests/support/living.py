"""Files of a process that runs. A temporary file of it goes at any moment, so it is left out."""

from __future__ import annotations

from pathlib import Path


def paths_in(folder: Path) -> list[Path]:
    """All that is below a folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix != ".tmp")


def files_in(folder: Path) -> list[Path]:
    """The files below a folder."""
    return [path for path in paths_in(folder) if path.is_file()]
