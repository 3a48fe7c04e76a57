"""Power loss at any system call: what was acknowledged is on the disk (README.md, What is promised).

A process killed by SIGKILL leaves its writes to the kernel, so only this finds a sync that is missing.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import socket
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.hooks.hooked import Host
from tests.support.audit import wait_done, wait_received
from tests.support.powerloss import (
    Disk,
    Named,
    Said,
    Step,
    Synced,
    files_under,
    frames,
    read_steps,
    recorder,
    write_image,
)
from tests.support.processes import Daemon, Mesh, Process, mesh

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("strace") is None, reason="strace records the system calls"
)

SEED = random.SystemRandom().randrange(1 << 32)
SENDS = 160
POSTS = 20
OTHER_POINTS = 150


@dataclass
class Recording:
    """The system calls of one process, from a known state of its folder."""

    root: Path
    before: dict[str, bytes]
    steps: list[Step]


@dataclass
class Story:
    """One mesh's life under the recorder."""

    broker: Recording
    alice: Recording
    bob: Recording


@pytest.fixture(scope="module")
def story() -> Generator[Story]:
    """A broker and two daemons on empty disks: sends from eight callers, topic posts, an orderly end."""
    with mesh("alice", "bob", start=False) as made:
        alice, bob = made.daemons.values()
        # A hook that never ends within the story: every dm's job stays.
        hooks = Host(bob)
        hooks.script("on-dm", "sleep 1000")
        hooks.manifest(on_dm={"timeout_s": 1000})
        made.broker.stop()
        before = {}
        for process, root in ((made.broker, made.broker.data), (alice, alice.root), (bob, bob.root)):
            before[root] = files_under(root)
            process.prefix = recorder(_trace(process))
            process.start()
        made.broker.ready()
        for daemon in (alice, bob):
            daemon.ready()
        with _listening(bob):
            _send_everything(made, alice, bob)
        for process in (alice, bob, made.broker):
            assert process.stop() == 0

        def recording(process: Process, root: Path) -> Recording:
            return Recording(root, before[root], read_steps(_trace(process)))

        yield Story(
            recording(made.broker, made.broker.data),
            recording(alice, alice.root),
            recording(bob, bob.root),
        )


def _trace(process: Process) -> Path:
    return process.log.with_suffix(".trace")


@contextmanager
def _listening(daemon: Daemon) -> Generator[None]:
    """A client reads the daemon's events meanwhile."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(daemon.sock))
        link.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")

        def drain() -> None:
            with suppress(OSError):
                while link.recv(1 << 16):
                    pass

        reader = threading.Thread(target=drain)
        reader.start()
        try:
            yield
        finally:
            link.shutdown(socket.SHUT_RDWR)
            reader.join()


def _send_everything(made: Mesh, alice: Daemon, bob: Daemon) -> None:
    assert alice.request("POST", "/v1/topic/create", {"topic": "news"})[0] == 201
    assert bob.request("POST", "/v1/topic/subscribe", {"topic": "news"})[0] == 200

    def send(number: int) -> str:
        # Every eighth body is long: a row of several pages.
        text = f"message {number} " + "x" * (20_000 if number % 8 == 0 else 100)
        status, answer = alice.send("bob", text) if number < SENDS else alice.post("news", text)
        assert status == 202
        client_message_id: str = answer["client_message_id"]
        return client_message_id

    with ThreadPoolExecutor(8) as callers:
        ids = list(callers.map(send, range(SENDS + POSTS)))
    wait_received(bob, ids)
    wait_done(alice, ids)


# Messages of each process to others, with their times.


Acks = dict[int, set[str]]


def sends_taken(recording: Recording) -> Acks:
    """alice told a caller 202: the step, and the client_message_ids."""
    acks: Acks = {}
    for index, step in enumerate(recording.steps):
        if isinstance(step, Said) and b'"status":"queued"' in step.data:
            found = re.findall(rb'"client_message_id":"(\w+)"', step.data)
            acks.setdefault(index, set()).update(item.decode() for item in found)
    return acks


def messages_accepted(recording: Recording) -> Acks:
    """The broker told a sender 201: the step, and the broker_message_ids."""
    acks: Acks = {}
    for index, frame in frames(recording.steps):
        if frame["type"] == "send_result" and frame["status"] == 201:
            acks.setdefault(index, set()).add(frame["broker_message_id"])
    return acks


def deliveries_taken(recording: Recording, broker: Recording) -> Acks:
    """bob acknowledged a delivery: the step, and the broker_message_ids."""
    offered = {
        frame["delivery_id"]: frame["broker_message_id"]
        for _, frame in frames(broker.steps)
        if frame["type"] == "deliver"
    }
    acks: Acks = {}
    for index, frame in frames(recording.steps):
        if frame["type"] == "deliver_ack":
            acks.setdefault(index, set()).update(offered[item] for item in frame["delivery_ids"])
    return acks


def events_told(recording: Recording) -> Acks:
    """bob told a reader of its events of a message: the step, and the seqs."""
    told: Acks = {}
    for index, step in enumerate(recording.steps):
        if isinstance(step, Said) and b"event: message" in step.data:
            found = re.findall(rb'data: \{"seq":(\d+),', step.data)
            told.setdefault(index, set()).update(item.decode() for item in found)
    return told


# Content of an image.


def _rows(database: sqlite3.Connection, query: str) -> set[str]:
    return {row[0] for row in database.execute(query)}


def in_outbox(database: sqlite3.Connection) -> set[str]:
    """The sends that the image's outbox knows."""
    return _rows(database, "SELECT client_message_id FROM outbox")


def in_inbox(database: sqlite3.Connection) -> set[str]:
    """The messages that the image's inbox holds, each dm with the job of its hook."""
    assert _rows(database, "SELECT id FROM inbox WHERE kind = 'dm'") == _rows(
        database, "SELECT event_id FROM hook_jobs WHERE hook = 'on-dm'"
    )
    return _rows(database, "SELECT broker_message_id FROM inbox")


def seqs_in_inbox(database: sqlite3.Connection) -> set[str]:
    """The places of the messages that the image's inbox holds."""
    return {str(seq) for seq in _rows(database, "SELECT seq FROM inbox")}


def in_broker(database: sqlite3.Connection) -> set[str]:
    """The messages that the image's broker has accepted, all of their side effects together or none."""
    dedupe = _rows(database, "SELECT broker_message_id FROM client_message_dedupe")
    bodies = _rows(database, "SELECT id FROM message_queue UNION ALL SELECT id FROM topic_message")
    assert dedupe == bodies == _rows(database, "SELECT broker_message_id FROM message_history")
    assert _rows(database, "SELECT broker_message_id FROM delivery_queue") <= dedupe
    return dedupe


def losses(
    recording: Recording, acks: Acks, database: str, read: Callable[[sqlite3.Connection], set[str]]
) -> list[str]:
    """Crash at every acknowledgement and at some other steps; tell what an image has lost."""
    choose = random.Random(SEED)
    others = set(choose.sample(range(len(recording.steps)), min(OTHER_POINTS, len(recording.steps))))
    disk = Disk(recording.root, recording.before)
    acknowledged: set[str] = set()
    lost = []
    with tempfile.TemporaryDirectory() as folder:
        for index, step in enumerate(recording.steps):
            disk.apply(step)
            acknowledged |= acks.get(index, set())
            if index not in acks and index not in others:
                continue
            for kind, image in (
                ("synced", disk.image()),
                ("mixed", disk.image(choose)),
                ("all", disk.image(keep=True)),
            ):
                try:
                    missing = acknowledged - _read_image(image, database, read, Path(folder))
                except sqlite3.DatabaseError as error:
                    lost.append(f"seed {SEED}, step {index}, {kind}: {error}")
                    continue
                if missing:
                    lost.append(f"seed {SEED}, step {index}, {kind}: {len(missing)} lost, {min(missing)}")
    return lost


def _read_image(
    image: dict[str, bytes], name: str, read: Callable[[sqlite3.Connection], set[str]], folder: Path
) -> set[str]:
    names = [f"{name}{suffix}" for suffix in ("", "-wal", "-shm", "-journal")]
    write_image(image, names, folder)
    with closing(sqlite3.connect(folder / name)) as database:
        try:
            verdict = database.execute("PRAGMA integrity_check").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            return read(database)
        except sqlite3.OperationalError as error:
            # Before the schema was made: nothing can have been acknowledged either.
            if "no such table" not in str(error):
                raise
            return set()


def test_no_send_that_was_taken_is_lost(story: Story) -> None:
    """202 means: in the outbox of every image."""
    acks = sends_taken(story.alice)
    assert sum(map(len, acks.values())) == SENDS + POSTS
    assert losses(story.alice, acks, "outbox.db", in_outbox) == []


def test_no_post_leaves_before_its_key_is_on_the_disk(story: Story) -> None:
    """A key that only its maker has had would make the post unreadable to its own sender."""
    recording = story.alice
    sealed = {
        index: (frame["envelope"]["destination_ref"], frame["envelope"]["seal"]["epoch"])
        for index, frame in frames(recording.steps)
        if frame["type"] == "send" and frame["envelope"]["seal"]["alg"] == "secretbox"
    }
    first = set(list(sealed)[:20])
    assert first
    disk, choose = Disk(recording.root, recording.before), random.Random(SEED)
    for index, step in enumerate(recording.steps):
        disk.apply(step)
        if index not in first:
            continue
        for image in (disk.image(), disk.image(choose), disk.image(keep=True)):
            [raw] = [data for path, data in image.items() if Path(path).name == "topic_keys.json"]
            here = {(one["topic"], one["key_epoch"]) for one in json.loads(raw)["keys"]}
            assert sealed[index] in here, f"seed {SEED}, step {index}"


def test_no_message_that_was_accepted_is_lost(story: Story) -> None:
    """201 means: dedupe row, body, history and delivery in the broker's database of every image."""
    acks = messages_accepted(story.broker)
    assert sum(map(len, acks.values())) == SENDS + POSTS
    assert losses(story.broker, acks, "broker.db", in_broker) == []


def test_no_delivery_that_was_acknowledged_is_lost(story: Story) -> None:
    """deliver_ack means: in the inbox of every image."""
    acks = deliveries_taken(story.bob, story.broker)
    assert len(set().union(*acks.values())) == SENDS + POSTS
    assert losses(story.bob, acks, "inbox.db", in_inbox) == []


def test_no_message_that_was_told_of_is_lost(story: Story) -> None:
    """An event means: in the inbox of every image, under that seq, so a stream that resumes has no gap."""
    told = events_told(story.bob)
    assert len(set().union(*told.values())) == SENDS + POSTS
    assert losses(story.bob, told, "inbox.db", seqs_in_inbox) == []


def test_these_tests_see_a_sync_that_is_missing(story: Story) -> None:
    """The same recordings without their syncs lose acknowledged work in every one of the three."""

    def unsynced(recording: Recording) -> Recording:
        kept = [step for step in recording.steps if not isinstance(step, Synced)]
        return Recording(recording.root, recording.before, kept)

    def moved(acks: Acks, recording: Recording) -> Acks:
        shift, moved_acks = 0, {}
        for index, step in enumerate(recording.steps):
            if index in acks:
                moved_acks[index - shift] = acks[index]
            shift += isinstance(step, Synced)
        return moved_acks

    for recording, acks, database, read in (
        (story.alice, sends_taken(story.alice), "outbox.db", in_outbox),
        (story.broker, messages_accepted(story.broker), "broker.db", in_broker),
        (story.bob, deliveries_taken(story.bob, story.broker), "inbox.db", in_inbox),
    ):
        first = dict(list(moved(acks, recording).items())[:3])
        assert losses(unsynced(recording), first, database, read)


@pytest.fixture(scope="module")
def membership() -> Generator[dict[str, Recording]]:
    """`mesh create` and `join` under the recorder, each in an empty home."""
    with mesh(start=False) as made:
        recordings = {}
        for name, word in (("alice", "create"), ("bob", "join")):
            trace = made.root / f"{word}.trace"
            home = made.root / name
            home.mkdir(mode=0o700)
            made.add(name, prefix=recorder(trace))
            recordings[word] = Recording(home, {}, read_steps(trace))
        yield recordings


@pytest.mark.parametrize("command", ["create", "join"])
def test_keys_are_on_the_disk_before_the_broker_hears_of_them(
    membership: dict[str, Recording], command: str
) -> None:
    """At every step a file is whole or absent; keys before the request, membership before the last word."""
    recording = membership[command]
    disk = Disk(recording.root, recording.before)
    choose = random.Random(SEED)
    needed: set[str] = set()
    for step in recording.steps:
        disk.apply(step)
        if isinstance(step, Said) and step.data.startswith(b"POST /v1/"):
            needed.add("keypair.json")
        if isinstance(step, Said) and b"mesh demo" in step.data:
            needed.add("membership.json")
        if not isinstance(step, (Said, Synced, Named)):
            continue
        for image in (disk.image(), disk.image(choose), disk.image(keep=True)):
            found = {Path(path).name: data for path, data in image.items()}
            assert needed <= found.keys(), f"seed {SEED}"
            for name in ("keypair.json", "membership.json"):
                if name in found:
                    assert json.loads(found[name])
    assert needed == {"keypair.json", "membership.json"}
