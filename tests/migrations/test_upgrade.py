"""A mesh of 0.1.0 taken over by processes of today, on both engines: its rows go on where they were."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing

import pytest

from claudemesh.runtime.exits import PERMISSION
from tests.integration.hooks.hooked import Host
from tests.support.audit import broker_rows, rows, wait_done, wait_received
from tests.support.processes import Daemon, Mesh, until
from tests.support.snapshots import ENGINES, restored_mesh

WAITING = ["dm-again", "dm-2", "topic-2", "topic-3", "queue-2", "inflight-1"]
RECEIVED = ["dm-1", "topic-1", "queue-1", "dm-sealed", "dm-again"]


@pytest.fixture(params=ENGINES)
def mesh(request: pytest.FixtureRequest) -> Generator[Mesh]:
    """The mesh of the snapshot, its broker started with today's code, its hosts not yet."""
    with restored_mesh("0.1.0", request.param) as made:
        made.broker.start()
        made.broker.ready()
        yield made


def start(mesh: Mesh, *names: str) -> list[Daemon]:
    """Start these hosts, and return them when they are connected."""
    daemons = [mesh.daemons[name] for name in names]
    for daemon in daemons:
        daemon.start()
    for daemon in daemons:
        daemon.ready()
    return daemons


def accepted(mesh: Mesh) -> dict[str, str]:
    """Return the broker_message_id of each client_message_id that the broker has accepted."""
    return dict(broker_rows(mesh, "SELECT client_message_id, broker_message_id FROM client_message_dedupe"))


def owed(mesh: Mesh, name: str) -> int:
    """Return how many deliveries wait for a member or in a queue."""
    query = f"""SELECT count(*) FROM delivery_queue WHERE queue IS NOT NULL
                OR recipient_member_id IN (SELECT id FROM member WHERE name = '{name}')"""
    [(count,)] = broker_rows(mesh, query)
    return int(count)


def test_messages_that_waited_at_the_broker_arrive_once(mesh: Mesh) -> None:
    """The one that was stored and not acknowledged is not stored twice."""
    assert owed(mesh, "bob") == len(WAITING)
    [bob] = start(mesh, "bob")
    wait_received(bob, WAITING)
    until(lambda: owed(mesh, "bob") == 0, "every delivery is acknowledged")
    ids = [item["client_message_id"] for item in bob.inbox()]
    assert sorted(ids) == sorted({*RECEIVED, *WAITING})
    bodies = {item["client_message_id"]: (item["body"], item["meta"]) for item in bob.inbox()}
    assert bodies["dm-2"] == ("dm 2", {"number": 2})
    assert bodies["topic-3"] == ("topic 3", None)


def test_a_sealed_message_is_opened_when_its_key_is_there(mesh: Mesh) -> None:
    """The host has the key now that the message was sealed to."""
    query = "SELECT count(*) FROM inbox_sealed"
    assert rows(mesh.daemons["bob"].root / "inbox.db", query) == [(1,)]
    [bob] = start(mesh, "bob")

    def body() -> object:
        return {item["client_message_id"]: item["body"] for item in bob.inbox()}["dm-sealed"]

    assert until(body, "it is opened") == "dm sealed"
    assert rows(bob.root / "inbox.db", query) == [(0,)]


def test_a_hook_that_was_to_run_runs(mesh: Mesh) -> None:
    """It is told of the message that was stored with it."""
    host = Host(mesh.daemons["bob"])
    host.script("on-dm", "echo $CLAUDEMESH_EVENT_ID >>$OUT/ran")
    host.manifest(on_dm={})
    [bob] = start(mesh, "bob")
    [again] = [item["id"] for item in bob.inbox() if item["client_message_id"] == "dm-again"]

    until(lambda: again in host.told("ran").split(), "it has run")
    query = f"SELECT count(*) FROM hook_jobs WHERE event_id = '{again}'"
    until(lambda: rows(bob.root / "inbox.db", query) == [(0,)], "the job is gone")


def test_an_accepted_id_that_is_sent_again_is_a_duplicate(mesh: Mesh) -> None:
    """The host answers from its outbox."""
    before = accepted(mesh)
    [alice] = start(mesh, "alice")
    again = {
        "dm-1": alice.send("bob", "dm 1", client_message_id="dm-1"),
        "topic-1": alice.post("deploys", "topic 1", client_message_id="topic-1", priority="low"),
        "queue-1": alice.post("queue:builds", "queue 1", client_message_id="queue-1"),
    }
    for name, (status, answer) in again.items():
        assert (status, answer["duplicate"], answer["broker_message_id"]) == (200, True, before[name])
    status, answer = alice.send("bob", "something else", client_message_id="dm-2")
    assert (status, answer["conflict"]) == (409, "outbox_done_fingerprint_mismatch")


def test_the_broker_knows_what_it_accepted(mesh: Mesh) -> None:
    """A host that has lost the answers offers its sends again and gets them; nothing is delivered twice."""
    before = accepted(mesh)
    alice = mesh.daemons["alice"]
    with closing(sqlite3.connect(alice.root / "outbox.db")) as connection, connection:
        forgotten = connection.execute(
            """UPDATE outbox SET status = 'inflight', broker_message_id = NULL, history_id = NULL,
               delivered_at = NULL WHERE status = 'done' RETURNING client_message_id"""
        ).fetchall()
    names = [*(name for (name,) in forgotten), "inflight-1"]
    assert {"dm-1", "topic-1", "queue-1", "dm-2", "dm-dave"} <= set(names)
    _, bob = start(mesh, "alice", "bob")
    wait_done(alice, names)
    outbox = alice.outbox()
    assert {name: outbox[name]["broker_message_id"] for name in names} == {
        name: before[name] for name in names
    }
    assert accepted(mesh) == before
    wait_received(bob, WAITING)
    until(lambda: owed(mesh, "bob") == 0, "every delivery is acknowledged")
    assert len(bob.inbox()) == len({*RECEIVED, *WAITING})


def test_sends_go_on_in_the_state_that_they_were_in(mesh: Mesh) -> None:
    """In flight is offered again and found accepted, pending is sent, dead and aborted stay."""
    before = accepted(mesh)
    assert "pending-1" not in before
    alice, carol, bob = start(mesh, "alice", "carol", "bob")
    wait_done(alice, ["inflight-1"])
    wait_done(carol, ["pending-1"])
    wait_received(bob, ["pending-1"])
    outbox = alice.outbox()
    assert outbox["inflight-1"]["broker_message_id"] == before["inflight-1"]
    assert accepted(mesh) == before | {"pending-1": carol.outbox()["pending-1"]["broker_message_id"]}
    states = {key: row["status"] for key, row in outbox.items() if key.startswith("dead")}
    assert states == {"dead-1": "dead", "dead-2": "aborted", "dead-3": "aborted", "dead-4": "dead"}
    status, _ = alice.post("nowhere", "dead-2", client_message_id="dead-2")
    assert status == 409


def test_topics_queues_and_mentions_go_on(mesh: Mesh) -> None:
    """Subscriptions hold; a member subscribes to what was there and is reached too."""
    alice, bob, carol = start(mesh, "alice", "bob", "carol")
    assert carol.request("POST", "/v1/topic/subscribe", {"topic": "deploys"})[0] == 200
    assert alice.post("deploys", "new", client_message_id="topic-new", mentions=["carol"])[0] == 202
    assert alice.post("queue:builds", "new", client_message_id="queue-new")[0] == 202
    assert carol.send("alice", "new", client_message_id="dm-new")[0] == 202
    wait_received(bob, ["topic-new", "queue-new"])
    wait_received(carol, ["topic-new"])
    wait_received(alice, ["dm-new"])


def test_a_revoked_member_and_one_that_left_stay_away(mesh: Mesh) -> None:
    """The first is refused, the second is not listed; the others sign in."""
    dave = mesh.daemons["dave"]
    dave.start()
    assert dave.ended() == PERMISSION
    [alice] = start(mesh, "alice")

    def listed() -> list[str]:
        return [peer["name"] for peer in alice.request("GET", "/v1/peers")[1]["items"]]

    # The snapshot of the host lists both.
    until(lambda: listed() == ["alice", "bob", "carol"], "the host has the list of the broker")
    for name in ("dave", "erin"):
        status, answer = alice.send(name, "too late")
        assert (status, answer["error"]) == (404, "destination_not_found")
