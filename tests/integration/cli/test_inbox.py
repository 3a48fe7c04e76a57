"""`inbox`: selection by time and text, acknowledgement, and the number of unread messages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.audit import wait_received
from tests.support.cli import Ran, begin, run
from tests.support.processes import Daemon, Mesh, mesh, until

OK, USAGE = 0, 64


def receive(made: Mesh, *texts: str) -> tuple[Daemon, Daemon]:
    """alice and bob; bob has received these texts from alice."""
    alice, bob = made.daemons.values()
    sent = [alice.send("bob", text)[1]["client_message_id"] for text in texts]
    wait_received(bob, sent)
    return alice, bob


def bodies(done: Ran) -> list[str]:
    """The texts of a list, the newest one last."""
    return [item["body"] for item in done.json["items"]]


def unread(daemon: Daemon) -> Any:
    """The number of unread messages, as `status` tells it."""
    return run(daemon.home, "status", "--json").json["unread"]


def test_grep_finds_texts_in_any_case_and_counts_them_against_the_limit() -> None:
    """Other messages do not use up the limit."""
    with mesh("alice", "bob") as made:
        _, bob = receive(made, "Deploy 1", "noise", "deploy 2", "noise", "DEPLOY 3", "noise")
        found = run(bob.home, "inbox", "--grep", "dePLOY", "--json")
        assert bodies(found) == ["Deploy 1", "deploy 2", "DEPLOY 3"]
        assert found.json["next"] is None
        newest = run(bob.home, "inbox", "--grep", "deploy", "-n", "2", "--json")
        assert bodies(newest) == ["deploy 2", "DEPLOY 3"]
        assert newest.json["next"] is not None
        assert "earlier messages than these 2" in run(bob.home, "inbox", "--grep", "deploy", "-n", "2").err


@pytest.mark.parametrize(("since", "count"), [("1h", 2), ("2000-01-01", 2), ("2999-01-01T00:00:00Z", 0)])
def test_since_takes_a_duration_or_a_time(pair: Mesh, since: str, count: int) -> None:
    """1h, a date, a time with a zone."""
    bob = pair.daemons["bob"]
    while len(bob.inbox()) < 2:
        receive(pair, "again")
    assert len(bodies(run(bob.home, "inbox", "--since", since, "-n", "2", "--json"))) == count
    wrong = run(bob.home, "inbox", "--since", "yesterday")
    assert wrong.code == USAGE
    assert "such as 30m" in wrong.err


def test_mark_read_acknowledges_what_was_shown_and_nothing_else() -> None:
    """Also with --follow."""
    with mesh("alice", "bob") as made:
        alice, bob = receive(made, "one", "two", "three")
        assert unread(bob) == 3
        assert bodies(run(bob.home, "inbox", "--grep", "two", "--mark-read", "--json")) == ["two"]
        assert unread(bob) == 2
        assert bodies(run(bob.home, "inbox", "--unread", "--json")) == ["one", "three"]
        assert run(bob.home, "inbox", "--unread", "--mark-read").code == OK
        assert unread(bob) == 0
        with begin(bob.home, "inbox", "-f", "--mark-read", "--json", "--grep", "wanted") as following:
            assert following.stdout is not None
            alice.send("bob", "other")
            alice.send("bob", "wanted")
            while b"wanted" not in following.stdout.readline():
                pass
            until(lambda: [bool(item["acked_at"]) for item in bob.inbox()][-2:] == [False, True], "it is")


def test_ack_takes_numbers_and_ids_or_all_of_them() -> None:
    """An unknown one changes nothing."""
    with mesh("alice", "bob") as made:
        _, bob = receive(made, "one", "two", "three")
        first, second, _ = bob.inbox()
        refused = run(bob.home, "inbox", "ack", str(first["seq"]), "no-such", "--json")
        assert (refused.code, refused.json["error"]) == (USAGE, "not_found")
        assert unread(bob) == 3
        done = run(bob.home, "inbox", "ack", str(first["seq"]), second["client_message_id"], "--json")
        assert done.json["acknowledged"] == 2
        assert unread(bob) == 1
        assert run(bob.home, "inbox", "ack").code == USAGE
        assert run(bob.home, "inbox", "ack", "--all", "1").code == USAGE
        assert run(bob.home, "inbox", "ack", "--all").out == "acknowledged 1 message\n"
        assert unread(bob) == 0


def test_events_are_selected_by_sender_and_topic_behind_a_message() -> None:
    """The position is a number or any id of a message."""
    with mesh("alice", "bob") as made:
        alice, bob = receive(made, "before", "the position", "after")
        for daemon in (alice, bob):
            made.cli(daemon, "topic", "create", "deploys")
            made.cli(daemon, "topic", "subscribe", "deploys")
        position = bob.inbox()[1]
        posted = bob.post("deploys", "own")[1]["client_message_id"]
        posted_too = alice.post("deploys", "of alice")[1]["client_message_id"]
        wait_received(bob, [posted_too])
        wait_received(alice, [posted])
        wanted = {
            ("--after", str(position["seq"])): b"after",
            ("--after", position["id"]): b"after",
            ("--after", "0", "--from", "@Alice", "--topic", "#deploys"): b"of alice",
        }
        for options, text in wanted.items():
            with begin(bob.home, "events", *options) as following:
                assert following.stdout is not None
                assert b'"body":"' + text + b'"' in following.stdout.readline()
        assert run(bob.home, "events", "--after", "no-such").code == USAGE
        assert run(bob.home, "events", "--after", "1", "--since", "1").code == USAGE
