"""`from claudemesh import Daemon`: with real processes, over kills and restarts, and as a file alone."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from claudemesh import AsyncDaemon, Daemon, DaemonError
from claudemesh.sdk import (
    Conflict,
    DaemonNotRunning,
    DestinationNotFound,
    InvalidRequest,
    Message,
    find_socket,
    new_id,
)
from tests.support.audit import wait_received
from tests.support.processes import REPOSITORY, Mesh, mesh, until
from tests.support.waiting import WAIT_S


@pytest.fixture(scope="module")
def pair() -> Generator[Mesh]:
    """A broker, alice and bob, running."""
    with mesh("alice", "bob") as made:
        yield made


@pytest.fixture
def alice(pair: Mesh, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """The SDK as a program on alice's host has it."""
    return of(pair, "alice", monkeypatch)


def of(made: Mesh, name: str, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """A client that finds this member's daemon by its home."""
    monkeypatch.setenv("CLAUDEMESH_HOME", str(made.daemons[name].home))
    return Daemon()


def test_a_file_and_a_long_text_go_to_another_host(
    pair: Mesh, alice: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The text over 1 MiB is given to the daemon as a file, and read whole."""
    (tmp_path / "build.log").write_bytes(b"content")
    shared = alice.send_file(tmp_path / "build.log", "bob", message="the log")
    text = "ü" * 1_200_000
    sent = alice.send("bob", text)
    bob = of(pair, "bob", monkeypatch)
    wait_received(pair.daemons["bob"], [str(shared.client_message_id), sent.client_message_id])
    assert [(file.file_id, file.state) for file in bob.files()] == [(shared.file_id, "announced")]
    (tmp_path / "out").mkdir()
    assert bob.fetch_file(shared.file_id, tmp_path / "out") == tmp_path / "out" / "build.log"
    assert (tmp_path / "out" / "build.log").read_bytes() == b"content"
    [long] = [message for message in bob.inbox() if message.client_message_id == sent.client_message_id]
    assert (long.body_truncated, long.body_bytes) == (True, len(text.encode()))
    assert bob.whole(long).body == text
    monkeypatch.setenv("CLAUDEMESH_HOME", str(pair.daemons["alice"].home))
    until(lambda: [file.state for file in alice.files("out")] == ["shared"], "the sender is done")
    alice.delete_file(shared.file_id)


def test_a_message_is_sent_received_acknowledged_and_answered(
    pair: Mesh, alice: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ten lines that most programs are."""
    sent = alice.send("bob", "may I?", meta={"n": 1}, priority="now", wait_ms=30_000)
    assert (sent.status, bool(sent.broker_message_id)) == ("done", True)
    bob = of(pair, "bob", monkeypatch)
    wait_received(pair.daemons["bob"], [sent.client_message_id])
    [question] = [message for message in bob.inbox(unread=True) if message.body == "may I?"]
    assert (question.sender_name, question.meta, question.priority) == ("alice", {"n": 1}, "now")
    bob.send(question.sender_name, "go ahead", reply_to_id=question.broker_message_id)
    bob.ack(question)
    assert question.id not in [message.id for message in bob.inbox(unread=True)]
    answers = until(
        lambda: [message for message in alice.inbox(sender="bob") if message.reply_to_id], "the answer"
    )
    assert (answers[0].body, answers[0].reply_to_id) == ("go ahead", sent.broker_message_id)
    everybody = {"alice": True, "bob": True}
    until(lambda: {peer.name: peer.online for peer in alice.peers()} == everybody, "both are online")
    assert alice.health()["mesh"] == "demo"


def test_topics_and_pages(pair: Mesh, alice: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """subscribe makes the topic; the inbox is gone through over page after page."""
    bob = of(pair, "bob", monkeypatch)
    bob.subscribe("many")
    with ThreadPoolExecutor(8) as callers:
        ids = [
            sent.client_message_id for sent in callers.map(lambda n: alice.send("#many", str(n)), range(700))
        ]
    wait_received(pair.daemons["bob"], ids)
    received = [message.client_message_id for message in bob.inbox(topic="many")]
    assert sorted(received) == sorted(ids)


def test_sending_again_is_free_and_another_text_is_a_conflict(alice: Daemon) -> None:
    """The id decides, as everywhere."""
    mine = new_id()
    assert alice.send("bob", "once", client_message_id=mine).client_message_id == mine
    assert alice.send("bob", "once", client_message_id=mine).client_message_id == mine
    with pytest.raises(Conflict) as caught:
        alice.send("bob", "twice", client_message_id=mine)
    assert (caught.value.status, caught.value.code) == (409, "idempotency_key_reused")


def test_errors_are_typed_and_say_what_to_do(
    alice: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown member, a forbidden send, a daemon that does not run."""
    with pytest.raises(DestinationNotFound) as missing:
        alice.send("bobb", "x")
    assert missing.value.body["near"] == ["bob"]
    with pytest.raises(InvalidRequest) as wrong:
        alice.send("bob", "x", reply_to_id="nonsense")
    assert wrong.value.body["field"] == "reply_to_id"
    monkeypatch.setenv("CLAUDEMESH_DAEMON_SOCK", str(tmp_path / "sock"))
    with pytest.raises(DaemonNotRunning, match="daemon up"):
        Daemon().health()
    with pytest.raises(DaemonNotRunning):
        next(Daemon().events())
    monkeypatch.delenv("CLAUDEMESH_DAEMON_SOCK")
    monkeypatch.setenv("CLAUDEMESH_HOME", str(tmp_path))
    with pytest.raises(DaemonError, match="join one first"):
        Daemon()
    monkeypatch.setenv("CLAUDEMESH_MESH", "named")
    assert find_socket() == tmp_path / "daemon/named/sock"
    assert find_socket("other") == tmp_path / "daemon/other/sock"


def test_messages_come_once_over_a_kill_and_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a gap, also when nothing had come before the daemon died."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        assert alice.send("bob", "before")[0] == 202
        wait_received(bob, [item["client_message_id"] for item in alice.outbox().values()])
        daemon = of(made, "bob", monkeypatch)
        with ThreadPoolExecutor(1) as reader, closing(daemon):
            reading = reader.submit(lambda: [message.body for message in islice(daemon.messages(), 3)])
            until(lambda: listening(bob), "the stream is open")
            bob.kill()
            assert alice.send("bob", "one")[0] == 202
            bob.start()
            bob.ready()
            assert alice.send("bob", "two")[0] == 202
            assert alice.send("bob", "three")[0] == 202
            assert reading.result(WAIT_S) == ["one", "two", "three"]
            replayed = [message.body for message in islice(daemon.messages(since=0), 4)]
            assert replayed == ["before", "one", "two", "three"]


def listening(daemon: Any) -> bool:
    """Whether an event stream of this daemon is open."""
    with closing(daemon.connection()) as connection:
        connection.request("GET", "/v1/metrics")
        return b"cm_daemon_event_streams 0" not in connection.getresponse().read()


async def test_the_asynchronous_client_does_the_same(pair: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls, pages and events, while the event loop goes on; leaving an iterator ends its connection."""
    monkeypatch.setenv("CLAUDEMESH_HOME", str(pair.daemons["bob"].home))
    bob = AsyncDaemon()
    monkeypatch.setenv("CLAUDEMESH_HOME", str(pair.daemons["alice"].home))
    alice = AsyncDaemon()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    texts = [f"async {number}" for number in range(3)]

    async def listen() -> list[Message]:
        found = []
        async with aclosing(bob.messages()) as messages:
            opened.set()
            async for message in messages:
                if message.body in texts:
                    found.append(message)
                if len(found) == len(texts):
                    return found
        raise AssertionError("it ended early")

    opened = asyncio.Event()
    listening_task = asyncio.create_task(listen())
    await opened.wait()
    await asyncio.to_thread(lambda: until(lambda: listening(pair.daemons["bob"]), "the stream is open"))
    for text in texts:
        await alice.send("bob", text)
    found = await asyncio.wait_for(listening_task, WAIT_S)
    assert [message.body for message in found] == texts
    assert ticks > 0
    ticking.cancel()
    bodies = [message.body async for message in bob.inbox(sender="alice")]
    assert set(texts) <= set(bodies)
    assert [peer.name for peer in await alice.peers()] == ["alice", "bob"]
    with pytest.raises(DestinationNotFound):
        await alice.send("nobody", "x")


async def test_a_burst_of_sends_opens_its_connections_once(
    pair: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next burst of as many takes those that the first one has opened."""
    client = AsyncDaemon(socket_path=pair.daemons["alice"].sock)
    opened, open_one = 0, client._open

    async def counted() -> object:
        nonlocal opened
        opened += 1
        return await open_one()

    monkeypatch.setattr(client, "_open", counted)
    try:
        await client.version()
        counts = []
        for _ in range(2):
            await asyncio.gather(*(client.send("bob", f"burst {number}") for number in range(32)))
            counts.append(opened)
        assert counts == [32, 32]
    finally:
        client.close()


def test_the_file_works_alone(pair: Mesh, tmp_path: Path) -> None:
    """Copied out, without any other package, without even the site's."""
    shutil.copy(REPOSITORY / "claudemesh/sdk.py", tmp_path / "sdk.py")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import sdk;"
        "d = sdk.Daemon(); print(d.send('bob', 'alone').status, d.health()['name'])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(tmp_path)],
        env={"CLAUDEMESH_HOME": str(pair.daemons["alice"].home)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.stdout in ("queued alice\n", "inflight alice\n"), done.stderr


def test_close_in_a_forked_process_ends_no_call_of_its_parent() -> None:
    """The connection of a call that goes on is the parent's; closing it in the child would end it there."""
    program = (
        "import os, socket\n"
        "from claudemesh import Daemon\n"
        "daemon = Daemon(socket_path='/nowhere/sock')\n"
        "ours, theirs = socket.socketpair()\n"
        "with daemon._daemon._io.stoppable(lambda: ours.shutdown(socket.SHUT_RDWR)):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        daemon.close()\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "    theirs.sendall(b'x')\n"
        "    print(ours.recv(1))\n"
        "ours.close(); theirs.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "b'x'\n"), done.stderr


@pytest.mark.usefixtures("alice")
def test_the_connections_of_a_burst_are_given_back() -> None:
    """The next request closes those that were idle for too long; one is enough for requests in turn."""

    def opened() -> int:
        return sum(path.resolve().name.startswith("socket:") for path in Path("/proc/self/fd").iterdir())

    async def burst() -> None:
        async with AsyncDaemon() as daemon:
            await daemon.health()
            before = opened()
            await asyncio.gather(*(daemon.health() for _ in range(20)))
            daemon._pool.idle_s = 0.0
            await daemon.health()
            assert opened() == before

    asyncio.run(burst())
