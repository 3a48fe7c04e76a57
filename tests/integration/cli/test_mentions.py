"""Being mentioned shows: in the inbox, in the events, to hooks and programs, and as a filter."""

from __future__ import annotations

import json
from itertools import islice

import pytest

from claudemesh.sdk import Daemon as Client
from tests.support.audit import wait_received
from tests.support.processes import mesh


def test_a_receiver_sees_that_it_was_mentioned_and_can_ask_for_that_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of one post, the member that it names sees it marked, and another one does not; so over a restart."""
    with mesh("alice", "bob", "eve") as made:
        alice, bob, eve = (made.daemons[name] for name in ("alice", "bob", "eve"))
        ids = [
            alice.post("all", "for @bob")[1]["client_message_id"],
            alice.post("all", "for nobody")[1]["client_message_id"],
            alice.send("bob", "a dm", mentions=["eve"])[1]["client_message_id"],
        ]
        wait_received(bob, ids)
        wait_received(eve, ids[:2])
        marked = {item["body"]: item["mentioned"] for item in bob.inbox()}
        assert marked == {"for @bob": True, "for nobody": False, "a dm": False}
        assert {item["mentioned"] for item in eve.inbox()} == {False}
        bob.stop()
        bob.start()
        bob.ready()
        for query in ("mentioned=true", "mentioned=true&order=desc", "mentioned=true&topic=all&unread=true"):
            _, page = bob.request("GET", f"/v1/inbox?{query}")
            assert [item["body"] for item in page["items"]] == ["for @bob"], query
        assert bob.request("GET", "/v1/inbox?mentioned=maybe")[0] == 400
        _, page = eve.request("GET", "/v1/inbox?mentioned=true")
        assert page["items"] == []
        shown = made.cli(bob, "inbox", "--mentions")
        assert "#all @you" in shown and "for @bob" in shown and "for nobody" not in shown
        assert "@you" not in made.cli(eve, "inbox")
        listed = json.loads(made.cli(bob, "inbox", "--mentions", "--json"))["items"]
        assert [item["body"] for item in listed] == ["for @bob"]
        monkeypatch.setenv("CLAUDEMESH_DAEMON_SOCK", str(bob.sock))
        with Client() as client:
            assert [message.body for message in client.inbox(mentioned=True)] == ["for @bob"]
            replayed = {message.body: message.mentioned for message in islice(client.messages(0), 3)}
            assert replayed == marked
