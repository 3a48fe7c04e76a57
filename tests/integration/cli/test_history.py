"""`claudemesh history`: messages that the broker keeps, by the command, the API and the SDK."""

from __future__ import annotations

import pytest

from claudemesh.sdk import Daemon as Client
from tests.support.audit import wait_received
from tests.support.processes import mesh


def test_a_member_reads_its_messages_again_from_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Received and sent ones, with one member, of one topic; another's dms are not in it."""
    with mesh("alice", "bob", "eve") as made:
        alice, bob, eve = (made.daemons[name] for name in ("alice", "bob", "eve"))
        ids = [
            alice.send("bob", "one")[1]["client_message_id"],
            alice.post("all", "two")[1]["client_message_id"],
        ]
        wait_received(bob, ids)
        wait_received(alice, [bob.send("alice", "three")[1]["client_message_id"]])
        for host in (alice, bob):
            _, page = host.request("GET", "/v1/history")
            assert [item["body"] for item in page["items"]] == ["one", "two", "three"]
            assert (page["next"], page["dropped"], page["pruned_before"]) == (None, 0, 0)
        _, page = eve.request("GET", "/v1/history")
        assert [item["body"] for item in page["items"]] == ["two"]
        newest = made.cli(bob, "history", "--with", "alice", "-n", "1")
        assert newest.splitlines()[0].split() == ["FROM", "TO", "SENT", "MESSAGE"]
        assert [line.split("\t")[0] for line in newest.splitlines()[1:]] == ["you"]
        assert "two" in made.cli(bob, "history", "--topic", "all")
        monkeypatch.setenv("CLAUDEMESH_HOME", str(alice.home))
        with Client() as client:
            kept = client.history(member="bob")
            assert [(one.own, one.body) for one in kept] == [(True, "one"), (False, "three")]
            assert [one.body for one in client.history(limit=2)] == ["two", "three"]
        assert bob.request("GET", "/v1/history?topic=all&with=alice")[0] == 400
        assert bob.request("GET", "/v1/history?with=stranger")[0] == 404
        alice.request("POST", "/v1/topic/create", {"topic": "quiet"})
        status, page = bob.request("GET", "/v1/history?topic=quiet")
        assert (status, page["items"]) == (200, [])
        for topic in ("quite", "queue:quiet"):
            status, answer = bob.request("GET", f"/v1/history?topic={topic}")
            assert (status, answer["error"]) == (404, "topic_not_found"), answer
