"""A work queue with real daemons: workers that die leave their jobs to the others."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.audit import wait_done
from tests.support.processes import Mesh, mesh, until

JOBS = 60


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
        message_id = f"job-{number}"
        assert send("queue:jobs", "do it", client_message_id=message_id)[0] in (200, 202)
        ids.append(message_id)
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
    # Answered to whoever gave it out, and to nobody else.
    crew.cli(carol, "reply", str(item["seq"]), "it is done")
    until(lambda: [item["body"] for item in alice.inbox()] == ["it is done"], "alice has heard")
    assert crew.cli(carol, "inbox", "--topic", "queue:jobs", "--limit", "1").strip()
