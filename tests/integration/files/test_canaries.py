"""Two hosts exchange build artefacts: the disks of the broker hold none of their bytes and names."""

from __future__ import annotations

import os
import py_compile
import tarfile
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.postgres import Server
from tests.support.processes import REPOSITORY, Daemon, Mesh, mesh, until

SOURCES = sorted((REPOSITORY / "claudemesh" / "protocol").glob("*.py"))[:12]
# Bytes of a file that are searched for, from several places of it.
PIECE = 24
NAME = "canary-of-a-name"


@dataclass
class Stored:
    """A mesh, the folders that hold all that its broker has, and the end of the database."""

    mesh: Mesh
    folders: list[Path]
    stop: Callable[[], object]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def stored(request: pytest.FixtureRequest) -> Generator[Stored]:
    """A mesh on one of the stores."""
    if request.param == "sqlite":
        with mesh("alice", "bob") as made:
            yield Stored(made, [made.broker.data], made.broker.stop)
        return
    server = Server()
    try:
        server.start()
        with mesh("alice", "bob", database_url=server.url()) as made:
            yield Stored(made, [made.broker.data, server.data], server.stop)
    finally:
        server.remove()


def build(folder: Path) -> list[Path]:
    """Compile some modules under names with canaries, and pack them: files as a build leaves them."""
    folder.mkdir()
    made = []
    for source in SOURCES:
        target = folder / f"{NAME}-{source.stem} ü.pyc"
        py_compile.compile(str(source), str(target), doraise=True)
        made.append(target)
    with tarfile.open(folder / f"{NAME}.tar", "w") as archive:
        for path in made:
            archive.add(path, path.name)
    (folder / f"{NAME}.log").write_text("a canary line of a log\n" * 5000)
    return [*made, folder / f"{NAME}.tar", folder / f"{NAME}.log"]


def exchange(sender: Daemon, receiver: Daemon, paths: Iterable[Path], out: Path) -> None:
    """Share files, and fetch each of them when its message has come."""
    out.mkdir()
    ids = {}
    for path in paths:
        body = {"path": str(path), "to": receiver.name, "message": f"a canary text for {path.name}"}
        status, answer = sender.request("POST", "/v1/file/share", body)
        assert status == 202, answer
        ids[answer["file_id"]] = path
    for file_id, path in ids.items():

        def fetched(file_id: str = file_id) -> bool:
            body = {"id": file_id, "out": str(out)}
            return receiver.request("POST", "/v1/file/get", body)[0] == 200

        until(fetched, f"{path.name} is fetched")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in ids.values()
    }


def needles(paths: Iterable[Path]) -> set[bytes]:
    """Pieces of the content of files from their beginning, middle and end, and their names."""
    found = {NAME.encode(), b"canary"}
    for path in paths:
        raw = path.read_bytes()
        places = (raw[at : at + PIECE] for at in (16, len(raw) // 3, len(raw) // 2, len(raw) - PIECE))
        # A piece of few different bytes, such as the padding of an archive, may be anywhere.
        found |= {piece for piece in places if len(set(piece)) > 8}
    return found


def test_no_byte_of_exchanged_artefacts_is_on_the_disk_of_the_broker(stored: Stored, tmp_path: Path) -> None:
    """In both directions; neither content nor names nor texts, in no file of broker or database."""
    alice, bob = stored.mesh.daemons["alice"], stored.mesh.daemons["bob"]
    artefacts = build(tmp_path / "dist")
    exchange(alice, bob, artefacts, tmp_path / "at-bob")
    exchange(bob, alice, artefacts[-2:], tmp_path / "at-alice")
    wanted = needles(artefacts)
    assert len(wanted) > len(artefacts)
    for daemon in (alice, bob):
        daemon.stop()
        _look_at_host(daemon, wanted)
    stored.stop()
    searched = 0
    for folder in stored.folders:
        for path in (path for path in folder.rglob("*") if path.is_file()):
            raw = path.read_bytes()
            searched += len(raw)
            assert not any(needle in raw for needle in wanted), path
            assert NAME not in os.fspath(path)
    assert searched > sum(path.stat().st_size for path in artefacts)


def _look_at_host(daemon: Daemon, wanted: set[bytes]) -> None:
    """It may live on the broker's host. Its home and log have no content, and names in databases only."""
    names = {needle for needle in wanted if b"canary" in needle}
    found = set()
    for path in (path for path in (daemon.log, *daemon.home.rglob("*")) if path.is_file()):
        raw = path.read_bytes()
        assert not any(needle in raw for needle in wanted - names), path
        if any(name in raw for name in names) or NAME in path.name:
            found.add(path.name.split(".db")[0])
    assert found and found <= {"files", "inbox", "outbox"}, found


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """The artefacts themselves hold every needle, so that an empty search means something."""
    artefacts = build(tmp_path / "dist")
    held = b"".join(path.name.encode() + path.read_bytes() for path in artefacts)
    assert [needle for needle in needles(artefacts) if needle not in held] == []
