"""The archive is reproducible, and says what is in it."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import bytecode
from build_pyz import checked_out, launcher
from materials import libraries
from targets import ALL, this
from tests.support.pyz import PYZ, REPOSITORY, build, byte_code, copy_of_the_checkout, natives

_PIP_CACHE = subprocess.run(
    [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=False
).stdout.strip()


@pytest.mark.slow
def test_a_build_elsewhere_under_other_settings_is_the_same_file(pyz: Path, tmp_path: Path) -> None:
    """Same inputs, same sha256, for any folder, umask, user's settings and time."""
    tree = copy_of_the_checkout(tmp_path / "a folder with spaces")
    for path in tree.rglob("*.py"):
        path.chmod(0o600)
    (tree / "claudemesh" / "notes.swp").write_text("not part of the package")
    settings = {
        "HOME": str(tmp_path),
        "PIP_CACHE_DIR": _PIP_CACHE,
        "TZ": "Pacific/Auckland",
        "LC_ALL": "C",
        "SOURCE_DATE_EPOCH": "1",
        "SHIV_ROOT": str(tmp_path / "shiv"),
        "PYTHONHASHSEED": "7",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    build(tree, "--commit", str(checked_out()), environment=settings, umask=0o077)
    other = tree / "dist" / "claudemesh.pyz"
    assert other.read_bytes() == pyz.read_bytes()
    assert other.stat().st_mode & 0o777 == 0o755
    for name in ("claudemesh.sbom.json", "claudemesh.licenses.txt", "claudemesh.pyz.sha256"):
        assert (other.parent / name).read_bytes() == (pyz.parent / name).read_bytes()


def test_an_archive_of_other_content_is_unpacked_elsewhere(pyz: Path) -> None:
    """The unpacked folder is named by its content: no start runs the modules of another build."""
    config = tomllib.loads((REPOSITORY / "shiv.toml").read_text())["pyz"]
    with zipfile.ZipFile(pyz) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    assert launcher(config, [this()], entries) == entries["claudemesh_launcher.py"]
    # environment.json holds shiv's hash over every source.
    solid = [name for name in entries if name.startswith(("native/", "bytecode/"))]
    assert len(solid) == 3
    other = json.dumps({**json.loads(entries["environment.json"]), "build_id": "other"}).encode()
    for change in ({"environment.json": other}, *({name: b"other"} for name in solid)):
        assert named_tree(launcher(config, [this()], entries | change)) != named_tree(
            entries["claudemesh_launcher.py"]
        )


def named_tree(text: bytes) -> str:
    """The folder that a launcher unpacks to."""
    found = re.search(r'^TREE = "([^"]+)"', text.decode(), re.MULTILINE)
    assert found is not None
    return found[1]


def test_a_build_without_a_change_does_nothing(pyz: Path) -> None:
    """A second call costs a glance at the inputs. Builds of one file wait for each other."""
    before = pyz.stat()
    assert "is up to date" in build()
    assert pyz.stat().st_mtime_ns == before.st_mtime_ns
    assert pyz.stat().st_ino == before.st_ino


def test_archive_holds_nothing_of_the_machine_it_was_built_on(pyz: Path) -> None:
    """Fixed times and modes, no notes of the installer, no path of the checkout, also not in byte-code."""
    with zipfile.ZipFile(pyz) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        assert names == sorted(names)
        assert {entry.date_time for entry in entries} == {(2026, 1, 1, 0, 0, 0)}
        assert {entry.external_attr >> 16 for entry in entries} <= {0o100644, 0o100755}
        notes = ("direct_url.json", "RECORD", "INSTALLER", "REQUESTED", ".pyc", ".pth", ".swp")
        assert [name for name in names if name.endswith(notes) or "/bin/" in name] == []
        place = str(REPOSITORY).encode()
        assert [name for name in names if place in archive.read(name)] == []
    assert place not in pyz.read_bytes()
    solid = {**natives(pyz)[this().name], **byte_code(pyz)}
    assert [name for name, data in solid.items() if place in data] == []


def test_byte_code_is_the_same_whatever_else_the_building_process_has_loaded() -> None:
    """It marks an object that is referred to more than once, and other modules refer to the same texts."""
    source = (REPOSITORY / "claudemesh/cli/main.py").read_bytes()
    sources = {"claudemesh/main.py": source, "library/old.py": b"print 1", "left/out.py": source}
    found = bytecode.compiled(sources, ["left"])
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import asyncio, json, bytecode\n"
        "sources = {'claudemesh/main.py': sys.stdin.buffer.read()}\n"
        "[data] = bytecode.compiled(sources, []).values()\n"
        "sys.stdout.buffer.write(data)"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(REPOSITORY / "build")],
            input=source,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        )
        assert list(found.values()) == [done.stdout]


def test_only_the_file_for_the_python_that_builds_it_carries_byte_code() -> None:
    """The file for many machines is the same bytes whichever Python builds it."""
    assert bytecode.is_made_for((this(),))
    assert not bytecode.is_made_for(ALL)
    assert not any(bytecode.is_made_for((target,)) for target in ALL if target.version != this().version)


def test_archive_holds_the_whole_package(pyz: Path) -> None:
    """Every source, statement and marker of the package, and the licence."""
    kinds = {".py", ".sql", ".typed"}
    own = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "claudemesh").rglob("*")
        if path.suffix in kinds and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(pyz) as archive:
        names = set(archive.namelist())
    assert own - {name.removeprefix("site-packages/") for name in names} == set()
    assert {"__main__.py", "claudemesh_fast.py", "LICENSE", "environment.json"} <= names


def test_checksum_stands_beside_the_archive(pyz: Path) -> None:
    """In the form that `sha256sum -c` reads."""
    checksum = hashlib.sha256(pyz.read_bytes()).hexdigest()
    assert Path(f"{pyz}.sha256").read_text() == f"{checksum}  claudemesh.pyz\n"


def test_bill_of_materials_names_every_library_with_its_licence_and_pinned_hash(pyz: Path) -> None:
    """CycloneDX, of this very file (ASVS 15.1.2)."""
    sbom = json.loads((pyz.parent / "claudemesh.sbom.json").read_text())
    text = (REPOSITORY / "build/requirements.txt").read_text()
    pins = dict(re.findall(r"^([a-z0-9.-]+)==([^ ]+)", text, re.MULTILINE))
    parts = {part["name"]: part for part in sbom["components"]}
    unpacker = parts.pop("shiv")
    vendored = {name: parts.pop(name) for name in list(parts) if parts[name]["purl"].startswith("pkg:npm/")}
    assert sbom["bomFormat"] == "CycloneDX"
    assert {name: part["version"] for name, part in parts.items()} == pins
    for name, part in parts.items():
        [found] = part["hashes"]
        pinned = text.partition(f"{name}==")[2].partition("# via")[0]
        assert (found["alg"], f"sha256:{found['content']}" in pinned) == ("SHA-256", True), name
    product = sbom["metadata"]["component"]
    assert product["hashes"][0]["content"] == hashlib.sha256(PYZ.read_bytes()).hexdigest()
    for part in (*parts.values(), *vendored.values(), unpacker, product):
        [licence] = part["licenses"]
        assert licence.get("expression") or licence["license"]["name"]
    with zipfile.ZipFile(pyz) as archive:
        files = {
            name: hashlib.sha256(archive.read(name)).hexdigest()
            for name in archive.namelist()
            if name.startswith("_bootstrap/")
        }
    assert {file["name"]: file["hashes"][0]["content"] for file in unpacker["components"]} == files
    [script] = vendored["htm"]["components"]
    content = (REPOSITORY / script["name"]).read_bytes()
    assert script["hashes"][0]["content"] == hashlib.sha256(content).hexdigest()


def test_the_licences_of_everything_inside_are_listed_with_their_texts(pyz: Path) -> None:
    """Beside the archive and in it."""
    sbom = json.loads((pyz.parent / "claudemesh.sbom.json").read_text())
    listed = (pyz.parent / "claudemesh.licenses.txt").read_text()
    table, *texts = listed.split("=" * 80 + "\n")
    for part in sbom["components"]:
        assert re.search(rf"^{part['name']} +{re.escape(part['version'])} +\S", table, re.MULTILINE)
        title = f"{part['name']} {part['version']}: "
        at = next(number for number, text in enumerate(texts) if text.startswith(title))
        assert len(texts[at + 1]) > 200, part["name"]
    with zipfile.ZipFile(pyz) as archive:
        assert archive.read("LICENSES.txt").decode() == listed


def test_a_wheel_that_is_not_pinned_ends_the_build(pyz: Path, tmp_path: Path) -> None:
    """The installer checks hashes; the bill is checked against the pins once more."""
    text = (REPOSITORY / "build/requirements.txt").read_text()
    info = tmp_path / "click-8.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: click\nVersion: 8.0\nLicense: BSD\n")
    archive = {"archive_info": {"hashes": {"sha256": "0" * 64}}}
    report = {"install": [{"metadata": {"name": "click"}, "download_info": archive}]}
    with pytest.raises(SystemExit, match="not what is pinned"):
        libraries(tmp_path, report, text)
    with pytest.raises(SystemExit, match="not one that is pinned"):
        libraries(tmp_path, report, f"click==8.0 \\\n    --hash=sha256:{'1' * 64}\n")
    [made] = libraries(tmp_path, report, f"click==8.0 \\\n    --hash=sha256:{'0' * 64}\n")
    assert (made.name, made.wheels, made.licence) == ("click", ("0" * 64,), "BSD")
