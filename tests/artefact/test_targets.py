"""One file for every machine: the Pythons that are installed here run it, and the rest have their modules."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from natives import is_native, reduced
from targets import ALL, Target, covered, named, this
from tests.support.processes import free_port
from tests.support.pyz import REPOSITORY, bare_environment, build, natives, pythons, trees
from tests.support.waiting import WAIT_S

PYTHONS = {
    version: path
    for version, path in sorted(pythons().items())
    if Target(version[:2], this().system, this().machine) in ALL
}
HERE = tuple({Target(version[:2], this().system, this().machine): None for version in PYTHONS})
# One of each platform beside this one.
ELSEWHERE = tuple(target for target in ALL if target.version == (3, 13) and target not in HERE)
# Libraries of every Linux with glibc.
BASELINE = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libgcc_s.so.1"}
MACHINES = {"x86_64": 62, "aarch64": 183}
CPUS = {"x86_64": 0x01000007, "arm64": 0x0100000C}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive for every Python that is installed here, and for one of each other platform."""
    path = tmp_path_factory.mktemp("wide") / "claudemesh.pyz"
    said = build(
        REPOSITORY,
        *("--output", str(path), "--targets", ",".join(target.name for target in (*HERE, *ELSEWHERE))),
    )
    assert "LEFT OUT" not in said
    return path


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS, ids=lambda version: ".".join(map(str, version)))
def test_every_python_that_is_installed_here_sends_a_message_with_the_same_file(
    wide: Path, version: tuple[int, int, int], tmp_path: Path
) -> None:
    """A broker and a daemon of that Python, each of its own unpacked modules."""
    run = Runner(PYTHONS[version], wide, tmp_path)
    started = run("up", "-d", "--with-broker")
    try:
        assert started.returncode == 0, started.stderr
        sent = run("send", "#all", "hello", "--wait", "30000", "--json")
        assert (sent.returncode, json.loads(sent.stdout)["status"]) == (0, "done"), sent.stderr
        told = json.loads(run("version", "--json").stdout)
        assert tuple(map(int, told["python"].split("."))) == version
    finally:
        run("down")
    [tree] = trees(tmp_path / ".cache" / "claudemesh")
    assert tree.name.endswith(Target(version[:2], this().system, this().machine).name)


@pytest.mark.slow
def test_two_pythons_share_a_cache_and_not_their_modules(wide: Path, tmp_path: Path) -> None:
    """Each unpacks its own tree, and neither removes the other's."""
    for path in PYTHONS.values():
        assert Runner(path, wide, tmp_path)("version").returncode == 0
    names = {tree.name.partition("-cp")[2] for tree in trees(tmp_path / ".cache" / "claudemesh")}
    assert names == {target.name.removeprefix("cp") for target in HERE}


@pytest.mark.slow
def test_every_platform_has_its_own_native_modules_and_needs_no_library_beside_them(wide: Path) -> None:
    """The same modules everywhere, each for the machine of its target."""
    found = natives(wide)
    assert set(found) == {target.name for target in (*HERE, *ELSEWHERE)}
    modules = {
        name: {re.sub(r"\.(cpython|abi3)[^/]*$", "", path) for path in files if path.endswith(".so")}
        for name, files in found.items()
    }
    assert len(modules[this().name]) > 8
    for target in (*HERE, *ELSEWHERE):
        assert modules[target.name] == modules[this().name], target
        for path, data in found[target.name].items():
            if not is_native(data):
                continue
            if target.system == "linux":
                assert struct.unpack_from("<H", data, 18) == (MACHINES[target.machine],), path
                own = {Path(other).name for other in found[target.name]}
                loader = {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
                assert set(needed(data)) <= BASELINE | loader | own, path
            else:
                assert struct.unpack_from("<I", data, 4) == (CPUS[target.machine],), path


@pytest.mark.slow
def test_what_the_targets_share_stands_once(wide: Path) -> None:
    """And a target has little but its native modules."""
    for name, files in natives(wide).items():
        beside = [path for path, data in files.items() if not is_native(data)]
        assert len(beside) < 20, (name, beside)
    assert wide.stat().st_size < 13_000_000


def test_a_target_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(SystemExit, match="'cp399' is no target"):
        named("cp311,cp399")
    assert named("all") == ALL
    assert {target.system for target in named("darwin")} == {"darwin"}
    assert [target.name for target in named("cp312-linux")] == ["cp312-linux-x86_64", "cp312-linux-aarch64"]


def test_the_targets_are_said_in_words() -> None:
    assert covered(named("cp311-linux-x86_64")) == "CPython 3.11 on Linux x86_64"
    assert covered(named("linux-x86_64")) == "CPython 3.11 to 3.14 on Linux x86_64"
    assert covered(named("cp311,cp313-linux-x86_64")) == (
        "CPython 3.11 and 3.13 on Linux x86_64; CPython 3.11 on Linux aarch64, macOS x86_64 and macOS arm64"
    )


def test_a_module_for_several_machines_is_cut_to_the_part_of_one() -> None:
    parts = {0x01000007: b"\xcf\xfa\xed\xfeintel", 0x0100000C: b"\xcf\xfa\xed\xfearm"}
    table, body, at = b"", b"", 8 + 20 * len(parts)
    for cpu, data in parts.items():
        table += struct.pack(">IIIII", cpu, 0, at + len(body), len(data), 0)
        body += data
    whole = struct.pack(">II", 0xCAFEBABE, len(parts)) + table + body
    assert reduced(whole, "arm64") == parts[0x0100000C]
    assert reduced(whole, "x86_64") == parts[0x01000007]


class Runner:
    """Commands of the archive under one Python, with a home of their own."""

    def __init__(self, python: str, pyz: Path, home: Path) -> None:
        self._start = [python, str(pyz)]
        self._environment = bare_environment(home, CLAUDEMESH_BROKER_LISTEN=f"127.0.0.1:{free_port()}")

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._start, *arguments], env=self._environment, capture_output=True, text=True, timeout=WAIT_S
        )


def needed(data: bytes) -> Iterator[str]:
    """The libraries that an ELF module is linked against."""
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    segments = [struct.unpack_from("<IIQQQQ", data, table + size * number) for number in range(count)]

    def offset(address: int) -> int:
        for kind, _, start, virtual, _, length in segments:
            if kind == 1 and virtual <= address < virtual + length:
                return start + address - virtual
        raise AssertionError(f"no segment holds {address:#x}")

    [dynamic] = [segment for segment in segments if segment[0] == 2]
    entries = list(struct.iter_unpack("<qQ", data[dynamic[2] : dynamic[2] + dynamic[5]]))
    [names] = [offset(value) for tag, value in entries if tag == 5]
    for tag, value in entries:
        if tag == 1:
            yield data[names + value : data.index(b"\0", names + value)].decode()


def test_chosen_pythons_are_the_only_ones_and_a_missing_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """`./build/test --pythons` does not pass without a Python that it was given."""
    version = ".".join(map(str, this().version))
    monkeypatch.setenv("CLAUDEMESH_TEST_PYTHONS", version)
    assert {found[:2] for found in pythons()} == {this().version}
    monkeypatch.setenv("CLAUDEMESH_TEST_PYTHONS", f"{version},3.99")
    with pytest.raises(RuntimeError, match=r"Python 3\.99"):
        pythons()
