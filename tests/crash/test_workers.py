"""A work queue with real daemons: workers that die leave their jobs to the others."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack

import pytest

from tests.support.audit import rows, wait_done
from tests.support.fleet import fleet
from tests.support.processes import Broker, Daemon, Mesh, Process, mesh, until

JOBS = 60
ROUNDS = 3
# Between two stops, so that each of them meets work under way.
BETWEEN = 60
# Between two jobs of a caller: a backlog of thousands would only have to be waited for.
PAUSE_S = 0.01


@pytest.fixture
def crew() -> Generator[Mesh]:
    """Alice gives out work, bob and carol do it."""
    with mesh("alice", "bob", "carol") as made:
        yield made


def test_every_job_is_done_by_somebody_though_workers_and_broker_die(crew: Mesh) -> None:
    """By one worker each, unless it died with the job in its hands."""
    alice, bob, carol = (crew.daemons[name] for name in ("alice", "bob", "carol"))
    assert alice.request("POST", "/v1/topic/create", {"topic": "queue:jobs"})[1]["mode"] == "queue"
    for worker in (bob, carol):
        assert worker.request("POST", "/v1/topic/subscribe", {"topic": "queue:jobs"})[0] == 200
    ids = []
    for number in range(JOBS):
        if number == JOBS // 3:
            bob.kill()
        if number == JOBS // 2:
            crew.broker.kill()
            crew.broker.start()
            crew.broker.ready()
        send = alice.post if number % 2 else alice.send
        client_message_id = f"job-{number}"
        assert send("queue:jobs", "do it", client_message_id=client_message_id)[0] in (200, 202)
        ids.append(client_message_id)
    wait_done(alice, ids)
    bob.start()
    bob.ready()

    def done() -> set[str]:
        return {item["client_message_id"] for worker in (bob, carol) for item in worker.inbox()}

    until(lambda: done() == set(ids), "every job is done")
    shared = {item["client_message_id"] for item in bob.inbox()} & {
        item["client_message_id"] for item in carol.inbox()
    }
    # Given to one, not acknowledged when it or the broker died, given to the other.
    assert len(shared) <= 2 * 16
    item = carol.inbox()[0]
    assert (item["kind"], item["topic"]) == ("queue", "jobs")
    # Answered to the member that gave it out, and to no other.
    crew.cli(carol, "reply", str(item["seq"]), "it is done")
    until(lambda: [item["body"] for item in alice.inbox()] == ["it is done"], "alice has heard")
    assert crew.cli(carol, "inbox", "--topic", "queue:jobs", "--limit", "1", "-q").strip()


class Jobs:
    """Callers that give out work until told to stop, and remember what was acknowledged."""

    def __init__(self, giver: Daemon, callers: int = 4) -> None:
        self._giver = giver
        self._stop = threading.Event()
        self._ids: list[list[str]] = [[] for _ in range(callers)]
        self._threads = [threading.Thread(target=self._give, args=(number,)) for number in range(callers)]

    def __enter__(self) -> Jobs:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def ids(self) -> list[str]:
        return [client_message_id for ids in self._ids for client_message_id in ids]

    def _give(self, caller: int) -> None:
        number = 0
        while not self._stop.wait(PAUSE_S):
            client_message_id = f"job-{caller}-{number}"
            status, _ = self._giver.post("queue:jobs", "do it", client_message_id=client_message_id)
            # The outbox takes 10,000; more would only wait there.
            assert status in (200, 202)
            self._ids[caller].append(client_message_id)
            number += 1


def done_by(worker: Daemon) -> list[str]:
    """Return the messages in a worker's inbox, also while it is stopped."""
    return [row[0] for row in rows(worker.root / "inbox.db", "SELECT client_message_id FROM inbox")]


@pytest.mark.parametrize("storage", ["sqlite", "postgres"])
def test_workers_and_brokers_that_are_stopped_in_turn_double_and_lose_no_job(storage: str) -> None:
    """SIGTERM under load: what is received is acknowledged before anything closes, others get the rest."""
    names = ("alice", "bob", "carol", "dave")
    with ExitStack() as stack:
        if storage == "postgres":
            made = stack.enter_context(fleet(2, *names))
            crew, brokers = made.mesh, made.brokers
        else:
            crew = stack.enter_context(mesh(*names))
            brokers = [crew.broker]
        alice, *workers = crew.daemons.values()
        alice.request("POST", "/v1/topic/create", {"topic": "queue:jobs"})
        for worker in workers:
            assert worker.request("POST", "/v1/topic/subscribe", {"topic": "queue:jobs"})[0] == 200

        def done() -> list[str]:
            return [client_message_id for worker in workers for client_message_id in done_by(worker)]

        with Jobs(alice) as jobs:
            for _ in range(ROUNDS):
                for process in (*workers, *brokers):
                    before = len(done())
                    until(lambda before=before: len(done()) >= before + BETWEEN, "work goes on")  # type: ignore[misc]
                    restart(process)
        wait_done(alice, jobs.ids)
        until(lambda: set(jobs.ids) <= set(done()), "every job is done")
        twice = [client_message_id for client_message_id, count in Counter(done()).items() if count > 1]
        # A broker waits so long for acknowledgements, and tells the rest.
        told = [told_missing(broker) for broker in brokers]
        assert len(twice) <= sum(told), f"{len(twice)} of {len(jobs.ids)}, {told} told"


def told_missing(broker: Broker) -> int:
    """The number of deliveries that a broker makes again, by its log, because it stopped waiting."""
    lines = (json.loads(line) for line in broker.log.read_text().splitlines() if line.startswith("{"))
    return sum(line["deliveries"] for line in lines if line["event"] == "acks_missing")


def restart(process: Process) -> None:
    """Stop in good order, and start again."""
    assert process.stop() == 0, process.log.read_text()[-3000:]
    process.start()
