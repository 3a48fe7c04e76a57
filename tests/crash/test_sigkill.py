"""SIGKILL between any two durable steps: the contract holds afterwards (README.md, What is promised)."""

from __future__ import annotations

import http.client
import itertools
import random
import signal
from collections.abc import Generator
from typing import Any

import pytest

from tests.support.audit import assert_contract, wait_received
from tests.support.postgres import Server
from tests.support.processes import Broker, Daemon, Mesh, mesh, until

SENDS = 6
POSTS = 2
SEND_PATH = [
    "submit.before_insert",
    "submit.before_commit",
    "submit.after_commit",
    "drain.before_send",
    "drain.after_send",
    "drain.before_settle_commit",
    "drain.after_settle_commit",
]
RECEIVE_PATH = ["receive.before_commit", "receive.after_commit", "receive.after_ack"]
ACCEPT_PATH = [
    "accept.after_lookup",
    "accept.after_validate",
    "accept.after_dedupe_rows",
    "accept.after_bodies",
    "accept.after_history",
    "accept.after_deliveries",
    "accept.before_commit",
    "accept.after_commit",
    "accept.before_answer",
    "deliver.before_push",
    "deliver.before_ack_commit",
]

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def running() -> Generator[Mesh]:
    """One mesh for all of these; each test restarts the process that it kills."""
    with mesh("alice", "bob", "carol") as made:
        subscribe(made)
        yield made


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    """A Postgres of this module's own."""
    made = Server()
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def on_postgres(server: Server) -> Generator[Mesh]:
    """The same mesh, its broker on that Postgres."""
    with mesh("alice", "bob", "carol", database_url=server.url()) as made:
        subscribe(made)
        yield made


def subscribe(made: Mesh) -> None:
    """Make the topic `news`, with bob and carol as its subscribers."""
    alice = made.daemons["alice"]
    assert alice.request("POST", "/v1/topic/create", {"topic": "news"})[0] in (200, 201)
    for name in ("bob", "carol"):
        assert made.daemons[name].request("POST", "/v1/topic/subscribe", {"topic": "news"})[0] == 200


class Victim:
    """A process that is killed at each of its failpoints in turn, and restarted by the test that notices."""

    def __init__(self, process: Broker | Daemon, strikes: list[str]) -> None:
        self.process = process
        self._strikes = strikes
        process.stop()
        process.start(self._strikes[0])
        process.ready()

    def revive(self) -> bool:
        """Restart it if it has died; returns whether every strike is past."""
        if self._strikes and not self.process.running:
            self.process.wait_killed()
            del self._strikes[0]
            self.process.start(self._strikes[0] if self._strikes else "")
            until(self._answers, "the victim answers again, or has died again")
        return not self._strikes

    def _answers(self) -> bool:
        if not self.process.running:
            return True
        if isinstance(self.process, Daemon):
            return self.process.request("GET", "/v1/health")[0] == 200
        return self.process.is_ready()


def send_surely(daemon: Daemon, victim: Victim, path: str, body: dict[str, Any]) -> str:
    """Send until it is answered, as a careful program does: the same id, the same text, again."""
    client_message_id = f"crash-{next(_numbers)}"

    def answered() -> bool:
        victim.revive()
        try:
            status, answer = daemon.request("POST", path, {**body, "client_message_id": client_message_id})
        except (OSError, http.client.HTTPException):
            return False
        assert status in (200, 202), answer
        return True

    until(answered, "the send is answered")
    return client_message_id


def strike(running: Mesh, process: Broker | Daemon, *failpoints: str) -> None:
    """Send dms and topic posts while a process dies at its failpoints, then hold all to the contract."""
    running.heal()
    alice, bob, carol = (running.daemons[name] for name in ("alice", "bob", "carol"))
    victim = Victim(process, list(failpoints))
    dms = [
        send_surely(alice, victim, "/v1/send", {"to": "bob", "message": f"dm {number}"})
        for number in range(SENDS)
    ]
    posts = [
        send_surely(alice, victim, "/v1/topic/post", {"topic": "news", "message": f"post {number}"})
        for number in range(POSTS)
    ]
    until(victim.revive, "every failpoint has struck")
    process.ready()
    alice.ready()
    assert_contract(running, alice, [bob], dms + posts)
    wait_received(carol, posts)
    received = [item["client_message_id"] for item in carol.inbox()]
    assert [received.count(client_message_id) for client_message_id in posts] == [1] * POSTS


@pytest.mark.parametrize("point", SEND_PATH)
def test_a_daemon_killed_on_the_send_path_loses_and_doubles_nothing(running: Mesh, point: str) -> None:
    """Every acknowledged send ends `done` with one message, wherever the sender's daemon dies."""
    strike(running, running.daemons["alice"], f"{point}=kill@2")


@pytest.mark.parametrize("point", RECEIVE_PATH)
def test_a_daemon_killed_on_the_receive_path_has_each_message_once(running: Mesh, point: str) -> None:
    """No ack before the row is durable; no second row after a repeated delivery."""
    strike(running, running.daemons["bob"], f"{point}=kill@2")


@pytest.mark.parametrize("point", ACCEPT_PATH)
def test_a_broker_killed_during_accept_has_all_five_side_effects_or_none(running: Mesh, point: str) -> None:
    """One broker id per send; no dedupe row without its message, history and deliveries."""
    strike(running, running.broker, f"{point}=kill@1")


# The steps between are the database's own: tests/contract stops it there.
@pytest.mark.parametrize(
    "point",
    [
        "accept.after_lookup",
        "accept.after_validate",
        "accept.after_commit",
        "accept.before_answer",
        "deliver.before_push",
        "deliver.before_ack_commit",
    ],
)
def test_a_broker_on_postgres_killed_during_accept_keeps_the_contract(on_postgres: Mesh, point: str) -> None:
    """The same promises, with the data in another process."""
    strike(on_postgres, on_postgres.broker, f"{point}=kill@1")


def test_a_database_killed_under_a_broker_keeps_the_contract(on_postgres: Mesh, server: Server) -> None:
    """The broker waits for it and goes on; what was answered 202 meanwhile arrives once."""
    alice, bob = on_postgres.daemons["alice"], on_postgres.daemons["bob"]
    ids = []
    for number in range(30):
        if number % 10 == 5:
            server.stop(signal.SIGQUIT)
        if number % 10 == 8:
            server.start()
        client_message_id = f"outage-{number}"
        assert alice.send("bob", "text", client_message_id=client_message_id)[0] in (200, 202)
        ids.append(client_message_id)
    assert on_postgres.broker.running
    assert_contract(on_postgres, alice, [bob], ids)


def test_a_daemon_killed_twice_on_the_send_path_still_converges(running: Mesh) -> None:
    """Also when recovery itself is interrupted: pairs of failpoints, chosen by a printed seed."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chosen = random.Random(seed).sample(
        [
            (a, b)
            for a in SEND_PATH[2:]
            for b in ("drain.before_send", "drain.after_send", "drain.before_settle_commit")
        ],
        3,
    )
    for first, second in chosen:
        strike(running, running.daemons["alice"], f"{first}=kill@2", f"{second}=kill@1")
