"""Files of a process that runs. A temporary file of it goes at any moment, so it is left out."""

from __future__ import annotations

import os
from pathlib import Path


def paths_in(folder: Path) -> list[Path]:
    """All that is below a folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix != ".tmp")


def files_in(folder: Path) -> list[Path]:
    """The files below a folder."""
    return [path for path in paths_in(folder) if path.is_file()]


def is_connected(pid: int) -> bool:
    """Whether a process has a connected unix socket."""
    lines = (line.split() for line in Path("/proc/net/unix").read_text().splitlines())
    connected = {f"socket:[{words[6]}]" for words in lines if words[5] == "03"}
    return any(os.readlink(descriptor) in connected for descriptor in Path(f"/proc/{pid}/fd").iterdir())
