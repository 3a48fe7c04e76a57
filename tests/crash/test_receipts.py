"""SIGKILL around receipts: a state is told exactly if it is on the disk (docs/spec/daemon.md, Receipts)."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.integration.sessions.test_receipts import mark, progress, reached, received
from tests.support.processes import Mesh, mesh, until


@pytest.fixture(scope="module")
def running() -> Generator[Mesh]:
    with mesh("alice", "bob") as made:
        yield made


@pytest.fixture
def pair(running: Mesh) -> Mesh:
    """Alice and bob, both healthy."""
    running.heal()
    return running


def test_a_daemon_killed_between_shown_and_its_commit_has_told_nothing(pair: Mesh) -> None:
    """The message is not shown after the start, and is told when it is."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    assert alice.send("bob", "x", client_message_id="mark", receipt="shown")[0] == 202
    reached(alice, "mark", "delivered")
    item = received(bob, "mark")
    bob.stop()
    bob.start("mark.before_commit=kill@1")
    bob.ready()
    with pytest.raises(OSError):
        mark(bob, item, "shown")
    bob.wait_killed()
    bob.start()
    bob.ready()
    assert received(bob, "mark")["shown_at"] is None
    assert progress(alice, "mark")["state"] == "delivered"
    mark(bob, item, "shown")
    reached(alice, "mark", "shown")


@pytest.mark.parametrize("point", ["receipt.before_submit", "receipt.after_submit"])
def test_a_daemon_killed_between_a_receipt_and_its_send_tells_it(pair: Mesh, point: str) -> None:
    """Behind the next start: once more than needed at most, which changes nothing."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    bob.stop()
    assert alice.send("bob", "x", client_message_id=point, receipt="delivered")[0] == 202
    bob.start(f"{point}=kill@1")
    bob.wait_killed()
    bob.start()
    bob.ready()
    [one] = reached(alice, point, "delivered")["recipients"]
    assert (one["name"], one["shown_at"]) == ("bob", None)


def test_a_local_send_killed_behind_its_message_is_known_when_it_is_repeated(pair: Mesh) -> None:
    """The message is in the inbox once, and its receipt is told behind the row. Another text is refused."""
    alice = pair.daemons["alice"]
    alice.stop()
    alice.start("local.after_inbox_commit=kill@1")
    alice.ready()
    sent = {"client_message_id": "local", "receipt": "shown"}
    with pytest.raises(OSError):
        alice.send("alice/api", "x", **sent)
    alice.wait_killed()
    alice.start()
    alice.ready()
    item = received(alice, "local")
    assert alice.request("GET", "/v1/outbox/local")[0] == 404
    mark(alice, item, "shown", "api")
    assert alice.send("alice/api", "y", **sent)[0] == 409
    status, answer = alice.send("alice/api", "x", **sent)
    assert (status, answer["broker_message_id"]) == (200, item["broker_message_id"])
    [one] = reached(alice, "local", "shown")["recipients"]
    assert (one["name"], one["session"]) == ("alice", "api")
    assert [one["body"] for one in alice.inbox() if one["client_message_id"] == "local"] == ["x"]


def test_a_sender_killed_before_it_has_written_a_receipt_gets_it_again(pair: Mesh) -> None:
    """The broker keeps it until it is acknowledged."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    bob.stop()
    assert alice.send("bob", "x", client_message_id="apply", receipt="delivered")[0] == 202
    alice.stop()
    alice.start("receipt.before_apply_commit=kill@1")
    bob.start()
    alice.wait_killed()
    alice.start()
    alice.ready()
    reached(alice, "apply", "delivered")


def test_a_reply_killed_before_it_acknowledges_does_so_when_it_is_sent_again(pair: Mesh) -> None:
    """Until then its message is not acknowledged, and no state is told."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    assert alice.send("bob", "x", client_message_id="asked", receipt="acked")[0] == 202
    answers = received(bob, "asked")["broker_message_id"]
    bob.stop()
    bob.start("reply.before_acknowledgement=kill@1")
    bob.ready()
    with pytest.raises(OSError):
        bob.send("alice", "yes", client_message_id="reply", reply_to_id=answers)
    bob.wait_killed()
    bob.start()
    bob.ready()
    received(alice, "reply")
    assert received(bob, "asked")["acked_at"] is None
    assert bob.send("alice", "yes", client_message_id="reply", reply_to_id=answers)[0] in (200, 202)
    until(lambda: received(bob, "asked")["acked_at"], "the message is acknowledged")
    reached(alice, "asked", "acked")
