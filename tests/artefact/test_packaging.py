"""`pip install .` works as well."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.pyz import REPOSITORY


@pytest.mark.slow
def test_package_can_be_made_by_pip_and_is_whole(tmp_path: Path) -> None:
    """With every statement and marker; and the packaging backend leaves build/ alone."""
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__", ".*", "dist", "tests", "docs")
    shutil.copytree(REPOSITORY, tree, ignore=ignored)
    before = sorted(path.name for path in (tree / "build").iterdir())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(tree)], check=True, capture_output=True)
    assert sorted(path.name for path in (tree / "build").iterdir()) == before
    [wheel] = tmp_path.glob("claudemesh-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("claudemesh/")}
    own = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "claudemesh").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert packed == own
