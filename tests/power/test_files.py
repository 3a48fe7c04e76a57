"""Power loss at any system call of sharing, storing and fetching a file: what was acknowledged is whole."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from claudemesh.runtime.uncached import BLOCK, DIRECT_PIECE
from tests.support.powerloss import (
    Disk,
    Said,
    Step,
    Synced,
    Written,
    files_under,
    read_steps,
    recorder,
    write_image,
)
from tests.support.processes import Daemon, mesh, until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("strace") is None, reason="strace records the system calls"
)

SEED = random.SystemRandom().randrange(1 << 32)
# The last one is written in whole pieces, past the page cache, and a rest.
SIZES = (0, 70_000, 300_001, 2 * BLOCK + 70_001)
OTHER_POINTS = 60

Image = dict[str, bytes]
Lost = Callable[[Image, set[str]], set[str]]


@dataclass
class Story:
    """The system calls of each process, from the known state of its folder."""

    recordings: dict[str, tuple[Path, Image, list[Step]]]
    contents: dict[str, bytes]  # by file id
    out: Path


@pytest.fixture(scope="module")
def story() -> Generator[Story]:
    """Alice shares files with bob, who fetches them, all under the recorder."""
    with mesh("alice", "bob", start=False) as made:
        alice, bob = made.daemons.values()
        made.broker.stop()
        out = made.root / "out"
        out.mkdir()
        kept = {}
        for process, root in ((made.broker, made.broker.data), (alice, alice.root), (bob, out)):
            kept[process] = (root, files_under(root))
            process.prefix = recorder(process.log.with_suffix(".trace"))
            process.start()
        made.broker.ready()
        for daemon in (alice, bob):
            daemon.ready()
        contents = dict(_exchange(alice, bob, made.root, out, size) for size in SIZES)
        for process in (alice, bob, made.broker):
            assert process.stop() == 0
        yield Story(
            {
                name: (*kept[process], read_steps(process.log.with_suffix(".trace")))
                for name, process in (("alice", alice), ("bob", bob), ("broker", made.broker))
            },
            contents,
            out,
        )


def _exchange(alice: Daemon, bob: Daemon, folder: Path, out: Path, size: int) -> tuple[str, bytes]:
    """Share a file and fetch it; return its id and its content."""
    content = os.urandom(size)
    (folder / "source").write_bytes(content)
    status, answer = alice.request("POST", "/v1/file/share", {"path": str(folder / "source"), "to": "bob"})
    assert status == 202, answer
    file_id: str = answer["file_id"]

    def is_shared() -> bool:
        items = alice.request("GET", "/v1/file/list?direction=out")[1]["items"]
        return any(item["file_id"] == file_id and item["state"] == "shared" for item in items)

    until(is_shared, "the file is shared")

    def is_fetched() -> bool:
        body = {"id": file_id, "out": str(out / file_id)}
        return bob.request("POST", "/v1/file/get", body)[0] == 200

    until(is_fetched, "the file is fetched")
    return file_id, content


def told(steps: list[Step], pattern: bytes) -> dict[int, set[str]]:
    """The steps at which a process said what the pattern finds."""
    found: dict[int, set[str]] = {}
    for index, step in enumerate(steps):
        if isinstance(step, Said) and (names := re.findall(pattern, step.data)):
            found[index] = {name.decode() for name in names}
    return found


def losses(recording: tuple[Path, Image, list[Step]], pattern: bytes, lost: Lost) -> list[str]:
    """Crash at every acknowledgement and at some other steps; tell what an image has lost."""
    root, before, steps = recording
    acks, choose = told(steps, pattern), random.Random(SEED)
    assert len(set().union(*acks.values())) == len(SIZES)
    others = set(choose.sample(range(len(steps)), min(OTHER_POINTS, len(steps))))
    disk, acknowledged, found = Disk(root, before), set[str](), []
    for index, step in enumerate(steps):
        disk.apply(step)
        acknowledged |= acks.get(index, set())
        if acknowledged and (index in acks or index in others):
            for image in (disk.image(), disk.image(choose), disk.image(keep=True)):
                missing = lost(image, acknowledged)
                found += [f"seed {SEED}, step {index}: {missing}"] if missing else []
    return found


def rows(image: Image, name: str, query: str) -> list[tuple[str, ...]]:
    """Read a database of an image."""
    with tempfile.TemporaryDirectory() as folder:
        write_image(image, [f"{name}{suffix}" for suffix in ("", "-wal", "-shm")], Path(folder))
        with closing(sqlite3.connect(Path(folder) / name)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return database.execute(query).fetchall()


def digest(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def not_shared(root: Path) -> Lost:
    """The accepted files that have no row, or no whole copy though their message has not left."""

    def lost(image: Image, accepted: set[str]) -> set[str]:
        query = "SELECT file_id, state, blob_sha256 FROM shared"
        found = {
            file_id
            for file_id, state, sha256 in rows(image, "files.db", query)
            if state == "shared" or digest(image.get(str(root / "spool" / file_id))) == sha256
        }
        return accepted - found

    return lost


def test_no_file_that_was_accepted_is_lost(story: Story) -> None:
    """202 means: its row and its encrypted copy are in every image, until its message has left."""
    root = story.recordings["alice"][0]
    accepted = rb'"status":"queued","client_message_id":"\w+","file_id":"(\w+)"'
    assert losses(story.recordings["alice"], accepted, not_shared(root)) == []


def test_no_blob_that_the_broker_has_verified_is_lost(story: Story) -> None:
    """`complete` means: the row says so, and the file has the hash of the row."""
    root = story.recordings["broker"][0]

    def lost(image: Image, complete: set[str]) -> set[str]:
        query = "SELECT id, size, hex(sha256) FROM blob WHERE complete"
        return complete - {
            str(size)
            for blob_id, size, sha256 in rows(image, "broker.db", query)
            if digest(image.get(str(root / "blobs" / blob_id))) == sha256.lower()
        }

    assert losses(story.recordings["broker"], rb'"size":(\d+),"complete":true', lost) == []


def test_no_file_that_was_fetched_is_lost(story: Story) -> None:
    """200 means: the name holds the whole content."""

    def lost(image: Image, fetched: set[str]) -> set[str]:
        return {one for one in fetched if image.get(str(story.out / one)) != story.contents[one]}

    assert losses(story.recordings["bob"], rb'"status":"done","file_id":"(\w+)"', lost) == []


def test_no_name_is_on_the_disk_before_its_content(story: Story) -> None:
    """At any step a file of the target's name is whole."""
    root, before, steps = story.recordings["bob"]
    disk, choose = Disk(root, before), random.Random(SEED)
    for index, step in enumerate(steps):
        disk.apply(step)
        if isinstance(step, Said):
            continue
        for image in (disk.image(), disk.image(choose), disk.image(keep=True)):
            for file_id, content in story.contents.items():
                assert image.get(str(story.out / file_id), content) == content, f"seed {SEED}, step {index}"


def test_these_tests_see_direct_writes(story: Story) -> None:
    """Each of the three processes has written whole pieces of the largest file."""
    for name, (root, _, steps) in story.recordings.items():
        whole = [step for step in steps if isinstance(step, Written) and len(step.data) == DIRECT_PIECE]
        assert {str(root) in step.path for step in whole} == {True}, name


def test_these_tests_see_a_sync_that_is_missing(story: Story) -> None:
    """The same recording of alice without its syncs loses an accepted file."""
    root, before, steps = story.recordings["alice"]
    unsynced = [step for step in steps if not (isinstance(step, Synced) and "/spool" in step.path)]
    accepted = rb'"status":"queued","client_message_id":"\w+","file_id":"(\w+)"'
    assert losses((root, before, unsynced), accepted, not_shared(root))
