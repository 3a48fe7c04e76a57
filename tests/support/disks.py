"""File systems with little room."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str, *options: str) -> Generator[None]:
    """Put a folder on a small file system of its own; skips where this user may not mount."""
    kept = Path(tempfile.mkdtemp(prefix="cm-"))
    shutil.copytree(folder, kept, dirs_exist_ok=True)
    wanted = ",".join((f"size={size},mode=700", *options))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", wanted, "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        shutil.rmtree(kept)


def fill(ballast: Path) -> None:
    """Take what is left of the file system."""
    with ballast.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return
