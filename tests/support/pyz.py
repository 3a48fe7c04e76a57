"""The built archive, started as a stranger would start it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).parents[2]
PYZ = REPOSITORY / "dist" / "claudemesh.pyz"
LIMIT_S = 60.0
# Below the virtual environment: it has none of our libraries.
BARE_PYTHON: str = getattr(sys, "_base_executable", sys.executable)


def build(tree: Path = REPOSITORY, *, environment: Mapping[str, str] | None = None, umask: int = -1) -> str:
    """Build a checkout's archive with this Python, unless it is up to date; returns what the build says."""
    done = subprocess.run(
        [sys.executable, str(tree / "build" / "build_pyz.py")],
        env={**os.environ, **(environment or {})},
        umask=umask,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def bare_environment(home: Path, **more: str) -> dict[str, str]:
    """An environment with a home and a path, and nothing else."""
    return {"PATH": os.defpath, "HOME": str(home), "CLAUDEMESH_HOME": str(home / "claudemesh"), **more}


def start(
    pyz: Path, *arguments: str, cwd: Path, environment: Mapping[str, str], umask: int = -1
) -> subprocess.CompletedProcess[str]:
    """Run one command of an archive to its end."""
    return subprocess.run(
        [BARE_PYTHON, str(pyz), *arguments],
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        umask=umask,
    )


def module_files(pyz: Path) -> dict[str, int]:
    """The files that the archive unpacks, with their sizes."""
    with zipfile.ZipFile(pyz) as archive:
        return {
            info.filename.removeprefix("site-packages/"): info.file_size
            for info in archive.infolist()
            if info.filename.startswith("site-packages/")
        }


def trees(cache: Path) -> list[Path]:
    """What is unpacked in a cache folder."""
    return sorted(path for path in cache.iterdir() if not path.name.startswith("."))


def mesh_script() -> ModuleType:
    """build/mesh.py as a module."""
    spec = importlib.util.spec_from_file_location("mesh_script", REPOSITORY / "build" / "mesh.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
