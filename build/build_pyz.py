"""Build the zipapp: pinned wheels and our package, shiv, then the archive again: the same bytes each time."""

from __future__ import annotations

import argparse
import fcntl
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

import bytecode
from materials import Material, bill_of_materials, bootstrap, libraries, licence_list, merged, vendored
from natives import is_used, of_platforms, packed, reduced, split
from targets import Target, covered, named

ROOT = Path(__file__).resolve().parents[1]
_CODE = {".py", ".sql", ".lua", ".ts", ".js", ".go", ".html", ".css"}
_OURS = {*_CODE, ".json", ".typed", ".mod", ".svg", ".txt"}
# Notes about one wheel and one installation: the program needs none of them, and paths stand in them.
# Entries that are solid archives, and compressed already.
_SOLID = ("native/", "bytecode/")
_INSTALLER_NOTES = {"direct_url.json", "INSTALLER", "REQUESTED", "RECORD", "WHEEL"}
_VERSION = re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE)


class MissingWheel(Exception):
    """The index has no wheel of a pinned library for a target."""


def main() -> int:
    """Read the arguments and build."""
    parser = argparse.ArgumentParser(prog="./build/pyz", description=__doc__)
    parser.add_argument("--output", type=Path, help="where to write it; shiv.toml decides by default")
    parser.add_argument("--force", action="store_true", help="build although nothing has changed")
    parser.add_argument(
        "--targets",
        default="this",
        help="Pythons and platforms that it runs on: this (the default), all, or names such as "
        "cp312-linux-x86_64, cp312 or linux, with commas between",
    )
    parser.add_argument("--commit", help="the commit that the file names; that of the checkout by default")
    options = parser.parse_args()
    commit = options.commit or checked_out()
    config = tomllib.loads((ROOT / "shiv.toml").read_text())["pyz"]
    output = options.output or ROOT / config["output"]
    targets = named(options.targets)
    os.umask(0o022)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Builds of one file wait for each other, and the second finds it up to date.
    with output.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return refresh(config, targets, commit, output, force=options.force)


def refresh(
    config: dict[str, Any], targets: tuple[Target, ...], commit: str | None, output: Path, *, force: bool
) -> int:
    """Build a file and what is said about it, unless its inputs are those of the file that is there."""
    digest = inputs_digest(config, targets, commit)
    stamp = output.with_suffix(".inputs")
    if not force and output.exists() and stamp.exists() and stamp.read_text() == digest:
        say(f"{_shown(output)} is up to date")
        return 0
    say(f"building {_shown(output)} for {covered(targets)}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".claudemesh-", dir=output.parent) as folder:
        made, materials = build(config, targets, commit, Path(folder))
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


def checked_out() -> str | None:
    """Return the commit of the checkout, with `+changes` when files differ from it; None outside of git."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    changed = _git("status", "--porcelain", "--", "claudemesh", "build", "shiv.toml", "LICENSE")
    return f"{commit}+changes" if changed else commit


def _git(*arguments: str) -> str | None:
    """Return the output of git, None when it cannot tell."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    except OSError:
        return None
    return None if done.returncode else done.stdout.strip()


def inputs_digest(config: dict[str, Any], targets: tuple[Target, ...], commit: str | None) -> str:
    """Return a hash over everything that the archive is made from, its targets included."""
    modules = (
        "build_pyz.py",
        "bytecode.py",
        "materials.py",
        "natives.py",
        "targets.py",
        "requirements-dev.txt",
    )
    paths = [*_own_files(), *(ROOT / "build" / name for name in modules)]
    paths += [
        ROOT / name
        for name in ("shiv.toml", "LICENSE", config["requirements"], config["launcher"], config["main"])
    ]
    digest = hashlib.sha256(" ".join((*(target.name for target in targets), str(commit))).encode())
    for path in paths:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def build(
    config: dict[str, Any], targets: tuple[Target, ...], commit: str | None, folder: Path
) -> tuple[Path, list[Material]]:
    """Build in a folder and return the finished archive, and what it is made of."""
    pins = (ROOT / config["requirements"]).read_text()
    trees: dict[str, dict[str, bytes]] = {}
    found: list[list[Material]] = []
    staged: list[Target] = []
    for target in targets:
        site = folder / target.name
        report = stage(config, target, site)
        if report is None:
            continue
        staged.append(target)
        found.append(libraries(site, report, pins))
        trees[target.name] = _contents(site, target.machine)
    if not staged:
        raise SystemExit("build/pyz: error: there are not all wheels for any target")
    common, own = split(trees)
    site, made, final = folder / "site", folder / "shiv.pyz", folder / "final.pyz"
    write_site(common, commit, site)
    run_shiv(config, site, made)
    entries = _entries(made)
    unpacking = {name: data for name, data in entries.items() if name.startswith("_bootstrap/")}
    entries |= {f"native/{name}.tar.xz": packed(files) for name, files in of_platforms(own).items()}
    if bytecode.is_made_for(tuple(staged)):
        kept = [*config["uncompiled"], *config["texts"]]
        entries |= bytecode.entries(_sources(site, own), kept)
    materials = [*merged(found), bootstrap(unpacking), *vendored(ROOT / "claudemesh")]
    rewrite(config, staged, entries, licence_list(materials, own_version()), final)
    return final, materials


def stage(config: dict[str, Any], target: Target, site: Path) -> dict[str, Any] | None:
    """Put the pinned wheels of a target into a folder, on any machine.

    Returns the installer's report, which names the hash of each wheel, or None when a wheel is missing.
    """
    report = site.with_suffix(".json")
    try:
        _python(
            *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"),
            *(
                "--target",
                str(site),
                "--no-compile",
                "--no-deps",
                "--require-hashes",
                "--only-binary",
                ":all:",
            ),
            *target.installer_options(),
            *("--report", str(report), "--requirement", str(ROOT / config["requirements"])),
        )
    except MissingWheel as error:
        say(f"build/pyz: LEFT OUT: {target}: {error}")
        return None
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


def write_site(common: dict[str, bytes], commit: str | None, site: Path) -> None:
    """Write the files that all targets share, our package, and the commit that it is of, into a folder."""
    own = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in _own_files()}
    own["claudemesh/build.json"] = json.dumps({"commit": commit}).encode()
    for name, data in (common | own).items():
        target = site / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _contents(site: Path, machine: str) -> dict[str, bytes]:
    paths = ((path.relative_to(site).as_posix(), path) for path in site.rglob("*") if path.is_file())
    return {name: reduced(path.read_bytes(), machine) for name, path in paths if is_used(name)}


def _sources(site: Path, own: dict[str, dict[str, bytes]]) -> dict[str, bytes]:
    """Return every module of an archive for one target, by its path."""
    [others] = own.values()
    return {path.relative_to(site).as_posix(): path.read_bytes() for path in site.rglob("*.py")} | others


def run_shiv(config: dict[str, Any], site: Path, made: Path) -> None:
    """Let shiv make its archive."""
    options = ["--reproducible"] if config["reproducible"] else []
    options += ["--compile-pyc"] if config["compile_pyc"] else []
    _python(
        *("-m", "shiv.cli", "--site-packages", str(site), *options),
        *("-e", config["entry_point"], "-p", config["interpreter"], "-o", str(made)),
        SOURCE_DATE_EPOCH=str(config["source_date_epoch"]),
    )


def rewrite(
    config: dict[str, Any], targets: list[Target], entries: dict[str, bytes], licences: str, final: Path
) -> None:
    """Rewrite the archive: sorted, fixed times and modes, our launcher ahead of shiv's bootstrap."""
    own = {
        "__main__.py": (ROOT / config["main"])
        .read_text()
        .replace("@COVERED@", covered(tuple(targets)))
        .replace("@PYTHON@", "python{}.{}".format(*targets[0].version))
        .encode(),
        "claudemesh_launcher.py": launcher(config, targets, entries),
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
                # Read at every start, and reading is cheaper than inflating; or compressed already.
                stored = name in own or name.startswith(("_bootstrap/", *_SOLID))
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


def launcher(config: dict[str, Any], targets: list[Target], entries: dict[str, bytes]) -> bytes:
    """Return the launcher of an archive with these entries, its blanks filled in."""
    content = hashlib.sha256(json.loads(entries["environment.json"])["build_id"].encode())
    for name in sorted(name for name in entries if name.startswith(_SOLID)):
        content.update(name.encode() + hashlib.sha256(entries[name]).digest())
    filled = {
        "@TARGETS@": " ".join(target.name for target in targets),
        "@COVERED@": covered(tuple(targets)),
        # Named by its content: an older build's modules are never run by mistake.
        "@TREE@": f"claudemesh-{own_version()}-{content.hexdigest()[:16]}",
        "@ENTRY_POINT@": config["entry_point"],
        "@UNCOMPILED@": " ".join(config["uncompiled"]),
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
        missing = re.search(r"No matching distribution found for (\S+)", done.stdout)
        if missing is not None:
            raise MissingWheel(f"there is no wheel of {missing[1]}")
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
