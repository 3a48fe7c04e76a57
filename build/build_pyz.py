"""Build the zipapp: pinned wheels, our package, shiv, then the archive written anew, reproducibly."""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_EPOCH_ZIP = (2026, 1, 1, 0, 0, 0)
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", re.MULTILINE)


def main() -> int:
    """Build, unless the inputs are those of the file that is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="where to write it; shiv.toml decides by default")
    parser.add_argument("--force", action="store_true", help="build although nothing has changed")
    options = parser.parse_args()
    config = tomllib.loads((ROOT / "shiv.toml").read_text())["pyz"]
    output = options.output or ROOT / config["output"]
    digest = inputs_digest(config)
    stamp = output.with_suffix(".inputs")
    if not options.force and output.exists() and stamp.exists() and stamp.read_text() == digest:
        print(f"{_shown(output)} is up to date", file=sys.stderr)
        return 0
    output.parent.mkdir(parents=True, exist_ok=True)
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="claudemesh-build-") as folder:
        print("building the pyz", file=sys.stderr)
        site = Path(folder) / "site"
        stage(config, site)
        made = Path(folder) / "made.pyz"
        run_shiv(config, site, made)
        final = output.with_suffix(".tmp")
        rewrite(config, made, final, digest)
        write_sbom(config, output)
        final.replace(output)
    checksum = hashlib.sha256(output.read_bytes()).hexdigest()
    Path(f"{output}.sha256").write_text(f"{checksum}  {output.name}\n")
    stamp.write_text(digest)
    print(f"{_shown(output)}  {output.stat().st_size / 1e6:.1f} MB  sha256 {checksum}", file=sys.stderr)
    return 0


def inputs_digest(config: dict[str, Any]) -> str:
    """Return a hash over everything that the archive is made from."""
    paths = sorted(path for path in (ROOT / "claudemesh").rglob("*") if _is_ours(path))
    paths += [ROOT / name for name in ("shiv.toml", "pyproject.toml", config["requirements"])]
    paths += [ROOT / config["launcher"], Path(__file__)]
    digest = hashlib.sha256(build_target().encode())
    for path in paths:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def build_target() -> str:
    """Return what the archive's native wheels are for: `3.11 linux x86_64`."""
    return f"{sys.version_info[0]}.{sys.version_info[1]} {sys.platform} {platform.machine()}"


def stage(config: dict[str, Any], site: Path) -> None:
    """Put the pinned wheels and our package into a folder, without anything that differs between builds."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    subprocess.run(
        [*pip, "--target", str(site), "--no-deps", "--require-hashes", "--only-binary", ":all:"]
        + ["-r", str(ROOT / config["requirements"])],
        check=True,
    )
    for path in (ROOT / "claudemesh").rglob("*"):
        if _is_ours(path):
            target = site / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    shutil.rmtree(site / "bin", ignore_errors=True)
    for path in sorted(site.rglob("*"), reverse=True):
        if path.name in ("direct_url.json", "INSTALLER", "REQUESTED", "RECORD"):
            path.unlink()
        elif path.name == "__pycache__":
            shutil.rmtree(path)


def run_shiv(config: dict[str, Any], site: Path, made: Path) -> None:
    """Let shiv make its archive."""
    epoch = str(config["source_date_epoch"])
    subprocess.run(
        [sys.executable, "-m", "shiv.cli", "--site-packages", str(site), "--reproducible"]
        + ["-e", config["entry_point"], "-p", config["interpreter"], "-o", str(made)],
        check=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": epoch, "SHIV_ROOT": str(made.parent / "root")},
        stdout=subprocess.DEVNULL,
    )


def rewrite(config: dict[str, Any], made: Path, final: Path, digest: str) -> None:
    """Write the archive anew: sorted, fixed times and modes, our launcher ahead of shiv's bootstrap."""
    launcher = (ROOT / config["launcher"]).read_text().replace("@TARGET@", build_target())
    extra = {"__main__.py": launcher.encode()}
    extra["claudemesh_fast.py"] = (ROOT / config["fast_path"]).read_bytes()
    with zipfile.ZipFile(made) as source, final.open("wb") as file:
        file.write(f"#!{config['interpreter']}\n".encode())
        with zipfile.ZipFile(file, "w") as archive:
            entries = {
                name: source.read(name)
                for name in source.namelist()
                if not name.endswith("/") and name not in extra
            }
            entries["environment.json"] = _environment(entries["environment.json"], digest)
            for name, data in sorted({**entries, **extra}.items()):
                info = zipfile.ZipInfo(name, _EPOCH_ZIP)
                # The launcher is read at each start, and unpacking it would cost more than reading it.
                stored = name in extra or name.startswith("_bootstrap/")
                info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
                info.external_attr = (0o755 if name.endswith(".so") else 0o644) << 16
                archive.writestr(info, data)
    final.chmod(0o755)


def _environment(raw: bytes, digest: str) -> bytes:
    """shiv names the unpacked folder by build_id: ours follows from the inputs, so old code is never run."""
    environment = json.loads(raw)
    environment["build_id"] = digest[:32]
    environment["built_at"] = "2026-01-01 00:00:00"
    return json.dumps(environment, sort_keys=True).encode()


def write_sbom(config: dict[str, Any], output: Path) -> None:
    """Write which libraries are inside, as CycloneDX, beside the archive."""
    pins = _PIN.findall((ROOT / config["requirements"]).read_text())
    components = []
    for name, version in sorted(pins):
        component: dict[str, Any] = {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
        }
        licence = _licence(name)
        if licence:
            component["licenses"] = [{"license": {"name": licence}}]
        components.append(component)
    sbom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "claudemesh"}},
        "components": components,
    }
    text = json.dumps(sbom, indent=1, sort_keys=True) + "\n"
    output.with_name("claudemesh.sbom.json").write_text(text)


def _licence(name: str) -> str | None:
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    for line in metadata.get_all("Classifier") or []:
        if line.startswith("License :: OSI Approved :: "):
            return str(line.rpartition(" :: ")[2])
    expression = metadata.get("License-Expression")
    return None if expression is None else str(expression)


def _is_ours(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    sys.exit(main())
