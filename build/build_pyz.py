"""Build the zipapp: pinned wheels and our package, shiv, then the archive anew: the same bytes each time."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from launcher import running_on
from materials import Material, bill_of_materials, bootstrap, libraries, licence_list

ROOT = Path(__file__).resolve().parents[1]
_OURS = {".py", ".sql", ".json", ".lua", ".typed"}
# What pip notes about this one installation; the launcher needs none of it, and paths stand in it.
_INSTALLER_NOTES = {"direct_url.json", "INSTALLER", "REQUESTED", "RECORD"}
_VERSION = re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE)


def main() -> int:
    """Build, unless the inputs are those of the file that is there."""
    parser = argparse.ArgumentParser(prog="./build/pyz", description=__doc__)
    parser.add_argument("--output", type=Path, help="where to write it; shiv.toml decides by default")
    parser.add_argument("--force", action="store_true", help="build although nothing has changed")
    options = parser.parse_args()
    config = tomllib.loads((ROOT / "shiv.toml").read_text())["pyz"]
    output = options.output or ROOT / config["output"]
    digest = inputs_digest(config)
    stamp = output.with_suffix(".inputs")
    if not options.force and output.exists() and stamp.exists() and stamp.read_text() == digest:
        say(f"{_shown(output)} is up to date")
        return 0
    say(f"building {_shown(output)} for {running_on()}")
    started = time.monotonic()
    os.umask(0o022)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".claudemesh-", dir=output.parent) as folder:
        made, materials = build(config, Path(folder))
        checksum = hashlib.sha256(made.read_bytes()).hexdigest()
        sbom = bill_of_materials(materials, own_version(), checksum)
        # The stamp goes first and comes last: a build that was cut off is done again.
        for path in (stamp, output.with_name("SHA256SUMS"), output.with_name("claudemesh.audit.json")):
            path.unlink(missing_ok=True)
        made.replace(output)
    _replace(output.with_name("claudemesh.sbom.json"), sbom)
    _replace(output.with_name("claudemesh.licenses.txt"), licence_list(materials, own_version()))
    _replace(output.with_name(f"{output.name}.sha256"), f"{checksum}  {output.name}\n")
    _replace(stamp, digest)
    took = time.monotonic() - started
    say(f"{_shown(output)}: {output.stat().st_size / 1e6:.1f} MB in {took:.1f} s, sha256 {checksum}")
    return 0


def inputs_digest(config: dict[str, Any]) -> str:
    """Return a hash over everything that the archive is made from, the kind of Python included."""
    paths = [
        *_own_files(),
        Path(__file__),
        Path(__file__).with_name("materials.py"),
        ROOT / "build" / "requirements-dev.txt",
    ]
    paths += [ROOT / name for name in ("shiv.toml", "LICENSE", config["requirements"], config["launcher"])]
    digest = hashlib.sha256(running_on().encode())
    for path in paths:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def build(config: dict[str, Any], folder: Path) -> tuple[Path, list[Material]]:
    """Build in a folder and return the finished archive, and what it is made of."""
    site, made, final = folder / "site", folder / "shiv.pyz", folder / "final.pyz"
    report = stage(config, site)
    run_shiv(config, site, made)
    entries = _entries(made)
    unpacking = {name: data for name, data in entries.items() if name.startswith("_bootstrap/")}
    pins = (ROOT / config["requirements"]).read_text()
    materials = [*libraries(site, report, pins), bootstrap(unpacking)]
    rewrite(config, entries, licence_list(materials, own_version()), final)
    return final, materials


def stage(config: dict[str, Any], site: Path) -> dict[str, Any]:
    """Put the pinned wheels and our package into a folder, without anything that differs between builds.

    Returns the installer's report, which names the hash of each wheel.
    """
    report = site.with_name("report.json")
    _python(
        *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--target", str(site), "--no-compile", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("--report", str(report), "--requirement", str(ROOT / config["requirements"])),
    )
    for path in _own_files():
        target = site / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.rmtree(site / "bin", ignore_errors=True)
    for path in sorted(site.rglob("*"), reverse=True):
        if path.name in _INSTALLER_NOTES:
            path.unlink()
        elif path.name == "__pycache__":
            shutil.rmtree(path)
        elif path.suffix == ".pth" or path.is_symlink():
            raise SystemExit(
                f"build/pyz: error: {path.name} cannot be packed: the launcher reads no such file"
            )
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def run_shiv(config: dict[str, Any], site: Path, made: Path) -> None:
    """Let shiv make its archive."""
    options = ["--reproducible"] if config["reproducible"] else []
    options += ["--compile-pyc"] if config["compile_pyc"] else []
    _python(
        *("-m", "shiv.cli", "--site-packages", str(site), *options),
        *("-e", config["entry_point"], "-p", config["interpreter"], "-o", str(made)),
        SOURCE_DATE_EPOCH=str(config["source_date_epoch"]),
    )


def rewrite(config: dict[str, Any], entries: dict[str, bytes], licences: str, final: Path) -> None:
    """Write the archive anew: sorted, fixed times and modes, our launcher ahead of shiv's bootstrap."""
    own = {
        "__main__.py": _launcher(config, json.loads(entries["environment.json"])["build_id"]),
        "claudemesh_fast.py": (ROOT / config["fast_path"]).read_bytes(),
        "claudemesh_trust.py": (ROOT / config["trust_rule"]).read_bytes(),
        "LICENSE": (ROOT / "LICENSE").read_bytes(),
    }
    when = time.gmtime(config["source_date_epoch"])[:6]
    with final.open("wb") as file:
        file.write(f"#!{config['interpreter']}\n".encode())
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in sorted({**entries, **own, "LICENSES.txt": licences.encode()}.items()):
                info = zipfile.ZipInfo(name, when)
                # Read at every start, from the archive: reading is cheaper than inflating.
                stored = name in own or name.startswith("_bootstrap/")
                info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
                info.create_system = 3
                info.external_attr = (0o100755 if name.endswith(".so") else 0o100644) << 16
                archive.writestr(info, data)
    final.chmod(0o755)


def _entries(made: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(made) as source:
        return {name: source.read(name) for name in source.namelist() if not name.endswith("/")}


def own_version() -> str:
    """Return the version that stands in the package."""
    found = _VERSION.search((ROOT / "claudemesh" / "__init__.py").read_text())
    if found is None:
        raise SystemExit("build/pyz: error: claudemesh/__init__.py has no __version__")
    return found[1]


def _launcher(config: dict[str, Any], build_id: str) -> bytes:
    filled = {
        "@TARGET@": running_on(),
        # Named by its content: an older build's modules are never run by mistake.
        "@TREE@": f"claudemesh-{own_version()}-{build_id[:16]}",
        "@ENTRY_POINT@": config["entry_point"],
    }
    text: str = (ROOT / config["launcher"]).read_text()
    for mark, value in filled.items():
        text = text.replace(mark, value)
    return text.encode()


def _own_files() -> list[Path]:
    return sorted(
        path for path in (ROOT / "claudemesh").rglob("*") if path.suffix in _OURS and path.is_file()
    )


def _python(*arguments: str, **environment: str) -> None:
    """Run a module of this Python, away from the user's own settings for Python and shiv."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHIV_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-I", *arguments],
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nbuild/pyz: error: {' '.join(arguments[:3])} failed")


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    sys.exit(main())
