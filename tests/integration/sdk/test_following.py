"""Following with the SDK: nothing lost, nothing twice, and an end at once, in both classes."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from claudemesh import AsyncDaemon, Daemon
from claudemesh.sdk import DaemonError
from tests.support.audit import wait_received
from tests.support.processes import REPOSITORY, Mesh, mesh, until
from tests.support.waiting import WAIT_S

# A follower that misses a message ends, and the test fails.
FOLLOW_S = 120


@pytest.fixture(scope="module")
def pair() -> Generator[Mesh]:
    """A broker, alice and bob, running."""
    with mesh("alice", "bob") as made:
        yield made


def deliver(made: Mesh, *texts: str) -> None:
    """Have bob receive messages from alice, in this order."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    for text in texts:
        wait_received(bob, [alice.send("bob", text)[1]["client_message_id"]])


def clear(made: Mesh) -> None:
    """Acknowledge everything in bob's inbox."""
    bob = Daemon(socket_path=made.daemons["bob"].sock)
    bob.ack(*bob.inbox(unread=True))


def unread(made: Mesh) -> list[str | None]:
    return [message.body for message in Daemon(socket_path=made.daemons["bob"].sock).inbox(unread=True)]


def is_followed(daemon: Any) -> bool:
    """Whether an event stream of this daemon is open."""
    return streams(daemon) > 0


def test_a_message_is_acknowledged_when_the_next_one_is_asked_for(pair: Mesh) -> None:
    """A program that ends within a message gets it again at its next start, and then what comes."""
    clear(pair)
    deliver(pair, "one", "two", "three")
    first = Daemon(socket_path=pair.daemons["bob"].sock)
    assert [message.body for message in islice(first.messages(ack=True), 2)] == ["one", "two"]
    assert unread(pair) == ["two", "three"]
    second = Daemon(socket_path=pair.daemons["bob"].sock)
    messages = second.messages(ack=True)
    assert [next(messages).body for _ in range(2)] == ["two", "three"]
    deliver(pair, "four")
    assert next(messages).body == "four"
    assert unread(pair) == ["four"]
    # A finished message is acknowledged also when the client was closed within it.
    second.close()
    assert next(messages, None) is None
    assert unread(pair) == []


async def test_the_asynchronous_client_acknowledges_too(pair: Mesh) -> None:
    """The same with `async for`."""
    clear(pair)
    deliver(pair, "one", "two", "three")
    for expected in (["one", "two"], ["two", "three"]):
        daemon = AsyncDaemon(socket_path=pair.daemons["bob"].sock)
        seen = []
        async with aclosing(daemon.messages(ack=True)) as messages:
            async for message in messages:
                seen.append(message.body)
                if len(seen) == 2:
                    break
        assert seen == expected


def test_unread_messages_come_before_live_ones_without_gap_or_duplicate(pair: Mesh) -> None:
    """More than a page, while others arrive; messages that were acknowledged elsewhere are left out."""
    clear(pair)
    alice, bob = pair.daemons["alice"], Daemon(socket_path=pair.daemons["bob"].sock)
    texts = [f"unread {number}" for number in range(250)]
    with ThreadPoolExecutor(1) as pool:
        sent = [alice.send("bob", text)[1]["client_message_id"] for text in texts[:150]]
        wait_received(pair.daemons["bob"], sent)
        (early,) = [message for message in bob.inbox(unread=True) if message.body == texts[0]]
        bob.ack(early)
        pouring = pool.submit(lambda: [alice.send("bob", text) for text in texts[150:]])
        assert sorted(message.body or "" for message in islice(bob.messages("unread"), 249)) == sorted(
            texts[1:]
        )
        pouring.result()


@pytest.mark.parametrize("running", [True, False], ids=["while it waits", "while its daemon is away"])
def test_close_ends_a_waiting_iterator_of_another_thread(running: bool) -> None:
    """At once: it neither waits for the next event nor for the daemon."""
    with mesh("bob") as made:
        daemon = Daemon(socket_path=made.daemons["bob"].sock)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(lambda: list(daemon.messages()))
            until(lambda: is_followed(made.daemons["bob"]), "the stream is open")
            if not running:
                made.daemons["bob"].kill()
            daemon.close()
            assert waiting.result(WAIT_S) == []
        assert list(daemon.messages()) == []


async def test_close_ends_a_waiting_asynchronous_iterator_from_another_thread(pair: Mesh) -> None:
    """The event loop is told; nothing else of it is needed."""
    daemon = AsyncDaemon(socket_path=pair.daemons["bob"].sock)

    async def follow() -> list[Any]:
        return [event async for event in daemon.events()]

    waiting = asyncio.create_task(follow())
    await asyncio.to_thread(lambda: until(lambda: is_followed(pair.daemons["bob"]), "the stream is open"))
    thread = threading.Thread(target=daemon.close)
    thread.start()
    async with asyncio.timeout(WAIT_S):
        events = await waiting
    assert "message" not in [event.event for event in events]
    thread.join()


def test_a_program_whose_task_is_cancelled_ends(pair: Mesh, tmp_path: Path) -> None:
    """No thread is left that waits for the daemon's next word."""
    program = """
import asyncio, sys
from claudemesh import AsyncDaemon

async def main():
    async def follow():
        async for message in AsyncDaemon().messages():
            raise AssertionError(message)
    task = asyncio.create_task(follow())
    await asyncio.to_thread(sys.stdin.readline)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

asyncio.run(main())
"""
    alice = pair.daemons["alice"]
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"CLAUDEMESH_HOME": str(alice.home), "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        try:
            until(lambda: is_followed(alice), "the stream is open")
            _, errors = running.communicate(b"\n", timeout=WAIT_S)
        finally:
            running.kill()
    assert (running.returncode, errors) == (0, b"")


async def test_listeners_do_not_keep_a_send_from_the_event_loop(pair: Mesh) -> None:
    """Waiting streams hold no thread of the loop's pool, however small that is."""
    pool = ThreadPoolExecutor(2)
    asyncio.get_running_loop().set_default_executor(pool)
    daemon = AsyncDaemon(socket_path=pair.daemons["bob"].sock)

    async def first() -> str | None:
        async with aclosing(daemon.messages()) as messages:
            return (await anext(messages)).body

    listening = [asyncio.create_task(first()) for _ in range(12)]
    async with asyncio.timeout(WAIT_S):
        while not all(task.done() for task in listening):
            await daemon.send("bob", "to myself")
            await asyncio.wait(listening, timeout=0.1)
    assert {task.result() for task in listening} == {"to myself"}


def test_a_send_waits_for_a_daemon_that_restarts() -> None:
    """A client that had an answer before knows that the daemon is there."""
    with mesh("alice", "bob") as made:
        bob = made.daemons["bob"]
        daemon = Daemon(socket_path=bob.sock)
        daemon.health()
        bob.kill()
        with pytest.raises(DaemonError):
            Daemon(socket_path=bob.sock).send("alice", "nobody is there")
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(lambda: daemon.send("alice", "in the meantime"))
            bob.start()
            assert sending.result(WAIT_S).status in ("queued", "inflight")


Follower = Callable[[Any, int], list[str]]


def by_daemon(daemon: Any, count: int) -> list[str]:
    messages = Daemon(socket_path=daemon.sock).messages(timeout_s=FOLLOW_S)
    return [message.body or "" for message in islice(messages, count)]


def by_async_daemon(daemon: Any, count: int) -> list[str]:
    async def follow() -> list[str]:
        bodies = []
        async with aclosing(AsyncDaemon(socket_path=daemon.sock).messages(timeout_s=FOLLOW_S)) as messages:
            async for message in messages:
                bodies.append(message.body or "")
                if len(bodies) == count:
                    break
        return bodies

    return asyncio.run(follow())


def by_acknowledging_daemons(daemon: Any, count: int) -> list[str]:
    """A program that is restarted after every 7th message.

    Its last message may come again, when the daemon was away for the acknowledgement.
    """
    bodies: list[str] = []
    end = time.monotonic() + FOLLOW_S
    while len(bodies) < count and time.monotonic() < end:
        client = Daemon(socket_path=daemon.sock, wait_for_daemon=True)
        for message in client.messages(ack=True, timeout_s=FOLLOW_S):
            if message.body not in bodies[-1:]:
                bodies.append(message.body or "")
            if len(bodies) % 7 == 0 or len(bodies) == count:
                client.close()
    return bodies


def by_listen(daemon: Any, count: int) -> list[str]:
    """`claudemesh listen`, as a script reads it."""
    environment = {**os.environ, "CLAUDEMESH_HOME": str(daemon.home), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "claudemesh", "listen", "--timeout", f"{FOLLOW_S}s"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            return [json.loads(line)["body"] for line in islice(process.stdout, count)]
        finally:
            process.kill()


def by_plain_sse(daemon: Any, count: int) -> list[str]:
    """A client of its own that only knows `id`, `data` and Last-Event-ID."""
    bodies: list[str] = []
    last: str | None = None
    end = time.monotonic() + FOLLOW_S
    while len(bodies) < count and time.monotonic() < end:
        connection = daemon.connection()
        try:
            connection.request("GET", "/v1/events", headers={} if last is None else {"Last-Event-ID": last})
            fields: dict[str, str] = {}
            for raw in connection.getresponse():
                name, _, value = raw.decode().rstrip("\n").partition(": ")
                if raw != b"\n":
                    fields[name] = value
                    continue
                last = fields.get("id", last)
                if fields.get("event") == "message":
                    bodies.append(json.loads(fields["data"])["body"])
                fields = {}
                if len(bodies) == count:
                    break
        except (OSError, http.client.HTTPException):
            threading.Event().wait(0.02)
        finally:
            connection.close()
    return bodies


def test_a_follower_of_a_daemon_that_is_killed_again_and_again_sees_each_message_once() -> None:
    """In order, from the moment it began, for each kind of follower."""
    followers: list[Follower] = [
        by_daemon,
        by_async_daemon,
        by_acknowledging_daemons,
        by_listen,
        by_plain_sse,
    ]
    count, kills = 240, 8
    with mesh("alice", "bob") as made, ThreadPoolExecutor(len(followers) + 1) as pool:
        alice, bob = made.daemons.values()
        following = [pool.submit(follower, bob, count) for follower in followers]
        until(lambda: streams(bob) == len(followers), "all of them follow")
        texts = [f"text {number}" for number in range(count)]
        for start in range(0, count, count // kills):
            sent = [alice.send("bob", text) for text in texts[start : start + count // kills]]
            assert {status for status, _ in sent} == {202}
            bob.kill()
            bob.start()
            bob.ready()
        results = [one.result() for one in following]
        order = [item["body"] for item in bob.inbox()]
        assert sorted(order) == sorted(texts)
        for follower, result in zip(followers, results, strict=True):
            assert result == order, follower.__name__


def streams(daemon: Any) -> int:
    """Return the number of open event streams of a daemon."""
    with closing(daemon.connection()) as connection:
        connection.request("GET", "/v1/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    [count] = [line.rpartition(" ")[2] for line in lines if line.startswith("cm_daemon_event_streams ")]
    return round(float(count))
