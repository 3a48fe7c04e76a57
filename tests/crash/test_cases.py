"""Cases seen to fail in systems of this kind; each has been reported somewhere as data loss."""

from __future__ import annotations

import http.client
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.support.audit import assert_contract, broker_rows, rows, wait_done, wait_received
from tests.support.processes import Daemon, Mesh, mesh, until


@pytest.fixture
def pair() -> Generator[Mesh]:
    """A broker, alice and bob."""
    with mesh("alice", "bob") as made:
        yield made


def bodies(daemon: Daemon) -> list[str]:
    """The text of every message in an inbox, oldest first."""
    return [item["body"] for item in daemon.inbox()]


def test_a_row_in_flight_when_the_daemon_is_killed_resolves_to_done(pair: Mesh) -> None:
    """SIGKILL while a row is in flight; after the restart it is done with one message."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    alice.stop()
    alice.start("drain.after_send=kill@1")
    alice.ready()
    with suppress(OSError, http.client.HTTPException):
        alice.send("bob", "once", client_message_id="flight")
    alice.wait_killed()
    state = rows(alice.root / "outbox.db", "SELECT status FROM outbox WHERE client_message_id = 'flight'")
    assert state == [("inflight",)]
    alice.start()
    alice.ready()
    assert_contract(pair, alice, [bob], ["flight"])
    assert alice.outbox()["flight"]["attempts"] == 1


def test_requeue_of_a_dm_keeps_destination_seal_priority_and_reply(pair: Mesh) -> None:
    """A requeued dm never becomes a broadcast."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    pair.broker.kill()
    until(lambda: not alice.request("GET", "/v1/health")[1]["connected"], "alice has lost the broker")
    reply_to = "01HQXW5Z3Y8C6T0V9R4N2M7K1P"
    fields = {"client_message_id": "stuck", "priority": "now", "reply_to_id": reply_to, "meta": {"k": [1]}}
    assert alice.send("bob", "for bob alone", **fields)[0] == 202
    row = alice.outbox()["stuck"]
    status, answer = alice.request(
        "POST", f"/v1/outbox/{row['id']}/requeue", {"new_client_message_id": "again"}
    )
    assert (status, answer.get("client_message_id")) == (200, "again"), answer
    old = alice.outbox()["stuck"]
    assert (old["status"], old["superseded_by"]) == ("aborted", alice.outbox()["again"]["id"])
    pair.broker.start()
    pair.broker.ready()
    wait_received(bob, ["again"])
    [item] = bob.inbox()
    assert (item["kind"], item["body"], item["priority"]) == ("dm", "for bob alone", "now")
    assert (item["reply_to_id"], item["meta"]) == (reply_to, {"k": [1]})
    status, answer = alice.send("bob", "for bob alone", **fields)
    assert (status, answer["conflict"]) == (409, "outbox_aborted_fingerprint_match")


@pytest.mark.parametrize("kind", ["dm", "topic"])
def test_a_lost_acknowledgement_ends_as_a_duplicate_with_the_same_ids(pair: Mesh, kind: str) -> None:
    """The broker commits and dies before it answers: the retry brings the ids of the first accept."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    pair.broker.stop()
    pair.broker.start("accept.before_answer=kill@1")
    pair.broker.ready()
    alice.ready()
    if kind == "dm":
        assert alice.send("bob", "hello", client_message_id="lost")[0] == 202
    else:
        assert alice.post("all", "hello", client_message_id="lost")[0] == 202
    pair.broker.wait_killed()
    [first] = broker_rows(pair, "SELECT broker_message_id FROM client_message_dedupe")
    pair.broker.start()
    pair.broker.ready()
    assert_contract(pair, alice, [bob], ["lost"])
    assert alice.outbox()["lost"]["broker_message_id"] == first[0]


def test_two_senders_may_use_the_same_client_message_id() -> None:
    """An id belongs to the member that uses it."""
    with mesh("alice", "bob", "carol") as made:
        alice, bob, carol = made.daemons.values()
        assert alice.send("carol", "from alice", client_message_id="deploy-42")[0] == 202
        assert bob.send("carol", "from bob", client_message_id="deploy-42")[0] == 202
        until(lambda: len(carol.inbox()) == 2, "both messages arrive")
        assert sorted(bodies(carol)) == ["from alice", "from bob"]


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_recipient_restarted_under_traffic_misses_nothing(pair: Mesh, how: str) -> None:
    """All messages are in the inbox without further traffic to wake them."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    ids = [f"m{number}" for number in range(300)]
    for number, client_message_id in enumerate(ids):
        assert alice.send("bob", client_message_id, client_message_id=client_message_id)[0] == 202
        if number == 100:
            getattr(bob, how)()
        if number == 200:
            bob.start()
    bob.ready()
    assert_contract(pair, alice, [bob], ids)


def test_a_daemon_started_before_its_broker_delivers_by_itself() -> None:
    """It accepts sends meanwhile, and delivers once the broker is there."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        alice.stop()
        made.broker.kill()
        alice.start()
        alice.ready(connected=False)
        assert alice.send("bob", "early", client_message_id="early")[0] == 202
        made.broker.start()
        made.broker.ready()
        assert_contract(made, alice, [bob], ["early"])


def test_each_of_three_topic_members_gets_each_post_once_though_one_was_offline() -> None:
    """The offline one gets them when it is back."""
    with mesh("alice", "bob", "carol", "dave") as made:
        alice, bob, carol, dave = made.daemons.values()
        assert alice.request("POST", "/v1/topic/create", {"topic": "news"})[0] in (200, 201)
        for member in (bob, carol, dave):
            assert member.request("POST", "/v1/topic/subscribe", {"topic": "news"})[0] == 200
        dave.stop()
        ids = [f"post{number}" for number in range(20)]
        for client_message_id in ids:
            assert alice.post("news", client_message_id, client_message_id=client_message_id)[0] == 202
        wait_done(alice, ids)
        dave.start()
        dave.ready()
        assert_contract(made, alice, [bob, carol, dave], ids)
        assert alice.inbox() == []


def test_1500_sends_in_a_burst_all_end_done(pair: Mesh) -> None:
    """None dies of rate limiting."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    ids = [f"burst{number}" for number in range(1500)]
    with ThreadPoolExecutor(16) as pool:
        statuses = list(
            pool.map(
                lambda client_message_id: alice.send("bob", "x", client_message_id=client_message_id)[0], ids
            )
        )
    assert set(statuses) == {202}
    assert_contract(pair, alice, [bob], ids)


def test_a_known_id_is_answered_while_the_broker_is_away_and_the_peer_unknown(pair: Mesh) -> None:
    """A retry is answered from the outbox, before anything that could fail."""
    alice = pair.daemons["alice"]
    assert alice.send("bob", "hello", client_message_id="known")[0] == 202
    wait_done(alice, ["known"])
    pair.broker.kill()
    alice.stop()
    (alice.root / "peers.json").unlink()
    alice.start()
    alice.ready(connected=False)
    assert alice.send("carol", "hello", client_message_id="new")[0] == 404
    status, answer = alice.send("bob", "hello", client_message_id="known")
    assert (status, answer["duplicate"]) == (200, True)
    status, answer = alice.send("bob", "another text", client_message_id="known")
    assert (status, answer["conflict"]) == (409, "outbox_done_fingerprint_mismatch")
    assert set(alice.outbox()) == {"known"}


def test_a_name_and_its_key_are_one_destination(pair: Mesh) -> None:
    """A dm to a name and the same dm to that member's key are one request."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    _, health = bob.request("GET", "/v1/health")
    assert alice.send("bob", "hello", client_message_id="same")[0] == 202
    wait_done(alice, ["same"])
    for to in (health["member_pubkey"], "@bob", "BOB"):
        status, answer = alice.send(to, "hello", client_message_id="same")
        assert (status, answer.get("duplicate")) == (200, True), to
    wait_received(bob, ["same"])
    assert bodies(bob) == ["hello"]
