"""The built archive, started as a stranger would start it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from tests.support.waiting import WAIT_S

REPOSITORY = Path(__file__).parents[2]
PYZ = REPOSITORY / "dist" / "claudemesh.pyz"
# Below the virtual environment: it has none of our libraries.
BARE_PYTHON: str = getattr(sys, "_base_executable", sys.executable)

NOBODY = 65_534


def python_for_nobody() -> tuple[str, int | None]:
    """A matching Python that another user can run, and that user; else this one's."""
    wanted = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for python in (BARE_PYTHON, f"/usr/bin/{wanted}", f"/usr/local/bin/{wanted}"):
        try:
            subprocess.run([python, "-c", "pass"], cwd="/", check=True, user=NOBODY, group=NOBODY)
        except OSError:
            continue
        return python, NOBODY
    return BARE_PYTHON, None


def build(
    tree: Path = REPOSITORY,
    *options: str,
    environment: Mapping[str, str] | None = None,
    umask: int = -1,
) -> str:
    """Build a checkout's archive, for this Python by default, unless it is up to date; returns its output."""
    done = subprocess.run(
        [sys.executable, str(tree / "build" / "build_pyz.py"), *options],
        env={**os.environ, **(environment or {})},
        umask=umask,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def copy_of_the_checkout(target: Path) -> Path:
    """Copy the files that a build and a release read to another folder."""
    kept = shutil.ignore_patterns("__pycache__")
    for name in ("claudemesh", "build"):
        shutil.copytree(REPOSITORY / name, target / name, ignore=kept)
    texts = ("LICENSE", "README.md", "CHANGELOG.md", "Dockerfile", ".dockerignore")
    for name in ("shiv.toml", "pyproject.toml", *texts):
        shutil.copy(REPOSITORY / name, target / name)
    return target


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
        timeout=WAIT_S,
        umask=umask,
    )


def module_files(pyz: Path) -> dict[str, int]:
    """The files that an archive for one target unpacks, with their sizes: byte-code in place of sources."""
    with zipfile.ZipFile(pyz) as archive:
        [listed] = [name for name in archive.namelist() if re.match(r"bytecode/.*\.txt", name)]
        replaced = archive.read(listed).decode().split()
        common = {
            info.filename.removeprefix("site-packages/"): info.file_size
            for info in archive.infolist()
            if info.filename.startswith("site-packages/")
        }
    [native] = natives(pyz).values()
    common = {name: size for name, size in common.items() if name not in replaced}
    return common | {name: len(data) for name, data in (native | byte_code(pyz)).items()}


def natives(pyz: Path) -> dict[str, dict[str, bytes]]:
    """The files of each target that the targets of an archive do not share."""
    found: dict[str, dict[str, bytes]] = {}
    for name, files in _solid(pyz, "native/").items():
        platform = name.removeprefix("native/").removesuffix(".tar.xz")
        for path, data in files.items():
            version, _, rest = path.partition("/")
            found.setdefault(f"{version}-{platform}", {})[rest] = data
    return found


def byte_code(pyz: Path) -> dict[str, bytes]:
    """The byte-code that an archive for one target carries."""
    [files] = _solid(pyz, "bytecode/").values()
    return files


def _solid(pyz: Path, beginning: str) -> dict[str, dict[str, bytes]]:
    found = {}
    with zipfile.ZipFile(pyz) as archive:
        for name in (name for name in archive.namelist() if re.match(rf"{beginning}.*\.tar\.xz", name)):
            with archive.open(name) as packed, tarfile.open(fileobj=packed, mode="r|xz") as files:
                found[name] = {
                    entry.name: content.read()
                    for entry in files
                    if (content := files.extractfile(entry)) is not None
                }
    return found


def pythons() -> dict[tuple[int, int, int], str]:
    """The Pythons that are installed here, by their version: on the PATH, of the system, beside this one.

    CLAUDEMESH_TEST_PYTHONS selects some of them; one that is not installed fails the run by name.
    """
    found = _installed()
    wanted = {
        tuple(map(int, text.split(".")))
        for text in os.environ.get("CLAUDEMESH_TEST_PYTHONS", "").split(",")
        if text
    }
    missing = wanted - {version[: len(short)] for version in found for short in wanted}
    if missing:
        names = ", ".join(".".join(map(str, version)) for version in sorted(missing))
        raise RuntimeError(f"Not installed here: Python {names}.")
    return {
        version: path
        for version, path in found.items()
        if not wanted or any(version[: len(short)] == short for short in wanted)
    }


def _installed() -> dict[tuple[int, int, int], str]:
    beside = sorted(Path(BARE_PYTHON).resolve().parents[2].glob("*/bin/python"))
    names = [f"python{version}" for version in ("2", "3", *(f"3.{minor}" for minor in range(6, 20)))]
    found: dict[tuple[int, int, int], str] = {}
    system = (path for name in names if (path := shutil.which(name, path=os.defpath)))
    candidates = [*filter(None, map(shutil.which, names)), *map(str, beside), *system]
    # Several names lead to one file, and the script of a version manager to a Python beside this one.
    for path in {os.path.realpath(path): path for path in candidates if not _is_script(path)}.values():
        code = "import sys; print('%s %d %d %d' % ((sys.executable,) + sys.version_info[:3]))"
        done = subprocess.run([path, "-c", code], capture_output=True, text=True)
        if done.returncode == 0:
            executable, major, minor, patch = done.stdout.split()
            found.setdefault((int(major), int(minor), int(patch)), executable)
    return found


def _is_script(path: str) -> bool:
    return Path(path).read_bytes()[:2] == b"#!"


def trees(cache: Path) -> list[Path]:
    """Return the unpacked trees in a cache folder."""
    return sorted(path for path in cache.iterdir() if not path.name.startswith("."))


def mesh_script() -> ModuleType:
    """build/mesh.py as a module."""
    spec = importlib.util.spec_from_file_location("mesh_script", REPOSITORY / "build" / "mesh.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
