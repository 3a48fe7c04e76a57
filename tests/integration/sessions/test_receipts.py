"""Receipts between real daemons: the sender learns how far its message has come, and no more."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.support.processes import Daemon, Mesh, mesh, until


@pytest.fixture(scope="module")
def made() -> Generator[Mesh]:
    with mesh("alice", "bob", "carol") as running:
        yield running


def progress(daemon: Daemon, client_message_id: str, query: str = "") -> dict[str, Any]:
    status, row = daemon.request("GET", f"/v1/outbox/{client_message_id}{query}")
    assert status == 200, row
    return dict(row)


def reached(daemon: Daemon, client_message_id: str, state: str) -> dict[str, Any]:
    """Wait for a state, and return the row."""
    return dict(
        until(
            lambda: (row := progress(daemon, client_message_id))["state"] == state and row,
            f"{client_message_id} is {state}",
        )
    )


def received(daemon: Daemon, client_message_id: str) -> dict[str, Any]:
    """Wait for a message in an inbox, and return it."""
    return dict(
        until(
            lambda: next(
                (item for item in daemon.inbox() if item["client_message_id"] == client_message_id), None
            ),
            f"{client_message_id} arrives",
        )
    )


def mark(daemon: Daemon, item: dict[str, Any], state: str, session: str | None = None) -> None:
    body = {"ids": [item["id"]], "as": state, **({"session": session} if session else {})}
    assert daemon.request("POST", "/v1/inbox/ack", body) == (200, {"marked": 1})


def test_the_sender_sees_each_state_of_its_message_and_its_session(made: Mesh) -> None:
    """Accepted, delivered, notified, shown, acked: each with its time, and no inbox shows a receipt."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    assert alice.send("bob", "redeploy?", client_message_id="all", receipt="acked")[0] == 202
    row = reached(alice, "all", "delivered")
    assert row["detail"] == "delivered at bob; the host of bob shows no session"
    [one] = row["recipients"]
    assert (one["name"], one["shown_at"], one["session"]) == ("bob", None, None)
    item = received(bob, "all")
    for state, session in (("notified", "api"), ("shown", "web"), ("acked", "ci")):
        mark(bob, item, state, session)
        row = reached(alice, "all", state)
    [one] = row["recipients"]
    assert [one[f"{state}_by"] for state in ("notified", "shown", "acked")] == ["api", "web", "ci"]
    assert one["session"] == "ci"
    assert all(one[f"{state}_at"] for state in ("delivered", "notified", "shown", "acked"))
    assert row["delivered_at"] and row["counts"] == dict.fromkeys(
        ("delivered", "notified", "shown", "acked"), 1
    )
    assert row["detail"] == "acked at bob in session ci"
    assert [item["body"] for daemon in (alice, bob) for item in daemon.inbox() if not item["body"]] == []
    seen = received(bob, "all")
    assert (seen["seen_by"], seen["for_session"]) == ("ci", "web")


def test_a_sender_is_told_no_more_than_it_asks_for(made: Mesh) -> None:
    """A message without a wish costs no receipt; one that asks for `shown` is not told that it is acked."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    assert alice.send("bob", "plain", client_message_id="plain")[0] == 202
    assert alice.send("bob", "shown", client_message_id="until-shown", receipt="shown")[0] == 202
    for name in ("plain", "until-shown"):
        mark(bob, received(bob, name), "acked")
    [one] = reached(alice, "until-shown", "shown")["recipients"]
    assert one["acked_at"] is None
    # A later receipt of the same host is behind every earlier one.
    assert alice.send("bob", "later", client_message_id="later", receipt="shown")[0] == 202
    mark(bob, received(bob, "later"), "shown")
    reached(alice, "later", "shown")
    row = progress(alice, "plain")
    assert (row["state"], row["recipients"], row["receipt"]) == ("accepted", [], None)
    assert row["detail"] == "accepted by the broker; it asked for no receipt"


def test_a_reply_acknowledges_the_message_that_it_answers(made: Mesh) -> None:
    """By the session that replies."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    assert alice.send("bob", "ready?", client_message_id="asked", receipt="acked")[0] == 202
    item = received(bob, "asked")
    reply = {"reply_to_id": item["broker_message_id"], "from_session": "web"}
    assert bob.send("alice", "yes", client_message_id="answer", **reply)[0] == 202
    assert received(bob, "asked")["acked_at"]
    [one] = reached(alice, "asked", "acked")["recipients"]
    assert one["session"] == "web"


def test_receipts_ask_for_no_receipts(made: Mesh) -> None:
    """Two hosts that tell each other receipts fall silent: each outbox row of a receipt has none."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    assert alice.send("bob", "ping", client_message_id="ping", receipt="shown")[0] == 202
    assert bob.send("alice", "pong", client_message_id="pong", receipt="shown")[0] == 202
    mark(bob, received(bob, "ping"), "shown")
    mark(alice, received(alice, "pong"), "shown")
    reached(alice, "ping", "shown")
    reached(bob, "pong", "shown")
    for daemon in (alice, bob):
        rows = [row for name, row in daemon.outbox().items() if name.startswith("receipt:")]
        assert rows and {row["receipt"] for row in rows} == {None}
        for row in rows:
            found = reached(daemon, row["client_message_id"], "accepted")
            assert found["recipients"] == []


def test_each_recipient_of_a_topic_answers_for_itself(made: Mesh) -> None:
    """The sender sees counts and names."""
    alice = made.daemons["alice"]
    assert alice.request("POST", "/v1/topic/create", {"topic": "news"})[0] in (200, 201)
    for name in ("bob", "carol"):
        assert made.daemons[name].request("POST", "/v1/topic/subscribe", {"topic": "news"})[0] == 200
    assert alice.post("news", "v42", client_message_id="news-1", receipt="acked")[0] == 202
    mark(made.daemons["carol"], received(made.daemons["carol"], "news-1"), "acked")
    row = until(
        lambda: (
            (row := progress(alice, "news-1"))["counts"]
            == {"delivered": 2, "notified": 1, "shown": 1, "acked": 1}
            and row
        ),
        "both recipients have told",
    )
    assert [(one["name"], one["state"]) for one in row["recipients"]] == [
        ("bob", "delivered"),
        ("carol", "acked"),
    ]


def test_a_recipient_whose_host_is_offline_is_named(made: Mesh) -> None:
    """The message stays accepted, and comes further when the host is back. No caller sends receipts."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    bob.kill()
    try:
        status, answer = alice.send("bob", "", receipts=[{"id": "x", "acked_at": 1}])
        assert (status, answer["error"]) == (400, "unknown_field")
        assert alice.send("bob", "later", client_message_id="offline", receipt="acked")[0] == 202
        reached(alice, "offline", "accepted")
        until(
            lambda: "the host of bob is offline" in progress(alice, "offline")["detail"],
            "bob's host is named",
        )
        assert progress(alice, "offline")["recipients"] == []
        assert alice.send("bob", "plainly", client_message_id="unasked")[0] == 202
        reached(alice, "unasked", "accepted")
        detail = progress(alice, "unasked")["detail"]
        assert detail.startswith(
            "accepted by the broker; it asked for no receipt; the host of bob is offline"
        )
    finally:
        bob.start()
        bob.ready()
    reached(alice, "offline", "delivered")


def test_a_caller_waits_for_a_state(made: Mesh) -> None:
    """The answer comes with the state, or at the end of the wait with the state so far."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    assert alice.send("bob", "wait", client_message_id="waited", receipt="shown")[0] == 202
    reached(alice, "waited", "delivered")
    assert progress(alice, "waited", "?wait_for=shown&wait_ms=1")["state"] == "delivered"
    mark(bob, received(bob, "waited"), "shown")
    until(
        lambda: progress(alice, "waited", "?wait_for=shown&wait_ms=30000")["state"] == "shown", "it is shown"
    )
    assert progress(alice, "waited", "?wait_for=delivered&wait_ms=30000")["state"] == "shown"
