"""Files of a release besides the archive: Python packages, context of the container, manual pages, changes.

Each comes out with the same bytes wherever and whenever it is made.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

_PACKAGED = ("claudemesh", "pyproject.toml", "README.md", "LICENSE")
_CONTEXT = ("Dockerfile", ".dockerignore", "dist/claudemesh.pyz")
# The backend overwrites sys.argv.
_BACKEND = """
import sys
from setuptools import build_meta
folder = sys.argv[1]
build_meta.build_sdist(folder)
build_meta.build_wheel(folder)
"""


def packages(tree: Path, folder: Path, epoch: int) -> list[str]:
    """Make the sdist and the wheel of a checkout in a folder; return their names."""
    with tempfile.TemporaryDirectory(prefix="claudemesh-package-") as work:
        copy, made = Path(work) / "copy", Path(work) / "made"
        made.mkdir()
        copy.mkdir()
        for name in _PACKAGED:
            source = tree / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"}
        for path in copy.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        done = subprocess.run(
            [sys.executable, "-I", "-c", _BACKEND, str(made)],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"{done.stderr}\nbuild/release: error: the packages cannot be made")
        names = sorted(path.name for path in made.iterdir())
        for name in names:
            target = folder / name
            if name.endswith(".tar.gz"):
                target.write_bytes(_normalised((made / name).read_bytes(), epoch))
            else:
                shutil.copy(made / name, target)
        return names


def container_context(tree: Path, folder: Path, version: str, epoch: int) -> str:
    """Pack what `docker build -` needs; return the name of the file."""
    name = f"claudemesh-{version}-container.tar.gz"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in _CONTEXT:
            archive.add(tree / path, path)
    (folder / name).write_bytes(_normalised(gzip.compress(packed.getvalue()), epoch))
    return name


def manual_pages(tree: Path, folder: Path, version: str, epoch: int) -> str:
    """Pack the manual pages of all commands; return the name of the file."""
    name = f"claudemesh-{version}-man.tar.gz"
    packed = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="claudemesh-man-") as work:
        command = [sys.executable, str(tree / "build" / "manpages.py"), work]
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{done.stderr}\nbuild/release: error: the manual pages cannot be made")
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(Path(work) / "man1", "man1")
    (folder / name).write_bytes(_normalised(gzip.compress(packed.getvalue()), epoch))
    return name


def changes(changelog: str, version: str) -> str:
    """Return the section of a version in the changelog. `SystemExit` when there is none."""
    found = re.search(
        rf"^## {re.escape(version)}(?![^\s])[^\n]*\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    if found is None:
        raise SystemExit(f"build/release: error: CHANGELOG.md has no section {version}")
    return found[0].strip() + "\n"


def _normalised(packed: bytes, epoch: int) -> bytes:
    """Return a .tar.gz with sorted entries, fixed times and modes, and no owner."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as source,
        tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for entry in sorted(source.getmembers(), key=lambda entry: entry.name):
            kept = tarfile.TarInfo(entry.name)
            kept.type, kept.size, kept.mtime = entry.type, entry.size, epoch
            kept.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
            target.addfile(kept, source.extractfile(entry) if entry.isfile() else None)
    return gzip.compress(out.getvalue(), mtime=0)
