"""Lists of messages, members and sends: what a reader needs for the next command stands in them."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.audit import wait_received
from tests.support.cli import Ran, homes, run
from tests.support.processes import Mesh, mesh

LONG = "第一行 " * 40 + "\n\tthe last line"


@pytest.fixture(scope="module")
def talk() -> Generator[Mesh]:
    """Alice has asked bob, who has answered; and a post that mentions bob, with a long text."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        home_a, home_b = homes(made)
        wait_received(bob, [alice.send("bob", "may I deploy?")[1]["client_message_id"]])
        for text in ("yes", "now"):
            answer = run(home_b, "reply", "1", text, "--json").json["client_message_id"]
            wait_received(alice, [answer])
        assert run(home_a, "reply", "2", "done").code == 0
        sent = run(home_a, "send", "#all", LONG, "--mention", "bob", "--json").json["client_message_id"]
        wait_received(bob, [sent])
        yield made


def rows(shown: Ran) -> list[dict[str, str]]:
    """The rows of a table by the words above them."""
    head, *lines = (line.split("\t") for line in shown.out.splitlines())
    return [dict(zip(head, line, strict=True)) for line in lines]


def test_a_list_of_messages_shows_threads_and_both_times(talk: Mesh) -> None:
    """`you` for an answer to a send of this host, else the number that `reply` takes."""
    alice, bob = homes(talk)
    asked, answered = rows(run(bob, "inbox")), rows(run(alice, "inbox"))
    assert [(row["ID"], row["FROM"], row["TO"], row["RE"]) for row in asked] == [
        ("1", "alice", "you", ""),
        ("2", "alice", "you", "you"),
        ("3", "alice", "#all @you", ""),
    ]
    assert [(row["RE"], row["MESSAGE"]) for row in answered] == [("you", "yes"), ("you", "now")]
    assert all(row["SENT"].endswith("Z") and row["SENT"] <= row["RECEIVED"] for row in asked)


def test_an_answer_among_received_messages_is_marked_by_its_number(talk: Mesh) -> None:
    """Bob answers the post of alice in the topic, and so does alice: she sees bob's answer at her post."""
    alice, bob = homes(talk)
    posted = run(bob, "topic", "post", "all", "shall we?", "--json").json["client_message_id"]
    wait_received(talk.daemons["alice"], [posted])
    (first,) = (row["ID"] for row in rows(run(alice, "inbox")) if row["MESSAGE"] == "shall we?")
    again = run(bob, "reply", "3", "in the topic", "--json").json["client_message_id"]
    wait_received(talk.daemons["alice"], [again])
    shown = rows(run(alice, "inbox"))
    assert [row["RE"] for row in shown if row["MESSAGE"] == "in the topic"] == ["you"]
    assert f"id            {first} (" in run(alice, "inbox", "show", first).out


def test_a_message_is_shown_in_full(talk: Mesh) -> None:
    """Its text is what was sent, with --quiet it alone."""
    alice, bob = homes(talk)
    assert run(bob, "inbox", "show", "3", "-q").out == LONG + "\n"
    shown = run(bob, "inbox", "show", "1").out
    assert "replies" not in shown
    assert "reply to      your send" in run(bob, "inbox", "show", "2").out
    assert run(bob, "inbox", "show", "3", "--json").json["body"] == LONG
    assert run(bob, "inbox", "show", "999", "--json").json["next"] == "claudemesh inbox"
    numbers = run(alice, "inbox", "-q", "--topic", "all").out.split()
    assert numbers == [str(item["seq"]) for item in talk.daemons["alice"].inbox() if item["topic"] == "all"]


def test_no_list_has_a_prefix_of_a_key(talk: Mesh) -> None:
    """A name can be pasted into the next command; the key of a member that has gone is whole."""
    alice, _ = homes(talk)
    keys = {item["pubkey"] for item in run(alice, "peers", "--json").json["items"]}
    for command in (["peers"], ["inbox"], ["outbox"], ["topic", "ls"]):
        shown = run(alice, *command)
        assert shown.code == 0
        assert not any(key[:8] in shown.out for key in keys), command
    assert {row["TO"] for row in rows(run(alice, "outbox"))} == {"bob", "#all"}


def test_json_names_the_commands_that_make_sense_next(talk: Mesh, tmp_path: Path) -> None:
    """And they work."""
    alice, _ = homes(talk)
    sent = run(alice, "send", "bob", "x", "--json")
    (wait,) = sent.json["next"]
    assert run(alice, *wait.split()[1:]).code == 0
    assert run(alice, "send", "bob", "x", "--wait", "30000", "--json").json["next"] == []
    invite = run(alice, "invite", "create", "--json").json
    assert invite["next"] == [f"claudemesh join '{invite['invite']}'"] or "?" not in invite["invite"]
    joined = run(tmp_path, "join", invite["invite"], "--name", "carol", "--json").json
    assert joined["next"] == ["claudemesh daemon up -d"]
