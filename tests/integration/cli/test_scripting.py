"""`wait`, `request`, `reply`, `ping` and the inbox, as scripts use them: with real processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.audit import wait_done, wait_received
from tests.support.cli import begin, homes, run
from tests.support.processes import Mesh, mesh, until
from tests.support.waiting import WAIT_S

OK, USAGE, TEMPORARY = 0, 64, 75


def test_wait_for_the_link_a_peer_and_a_message(pair: Mesh) -> None:
    """Exit 0 when it is so, 75 when the time is up, 64 for nonsense."""
    alice, bob = homes(pair)
    assert run(alice, "wait", "--for", "online").code == OK
    assert run(alice, "wait", "--for", "peer=@Bob").code == OK
    assert run(alice, "wait", "--for", "peer=nobody", "--timeout", "1s").code == TEMPORARY
    run(alice, "send", "bob", "wait for me", "--id", "waited")
    assert run(alice, "wait", "--for", "message=waited").code == OK
    assert run(bob, "wait", "--for", "message=waited").code == OK
    assert run(alice, "wait", "--for", "rain").code == USAGE
    assert run(alice, "wait", "--for", "peer=").code == USAGE


def test_wait_for_a_daemon_that_is_only_starting() -> None:
    """A script may start it and wait at once."""
    with mesh("alice", start=False) as made:
        daemon = made.daemons["alice"]
        with begin(daemon.home, "wait", "--for", "online", "--timeout", "120s") as waiting:
            daemon.start()
            assert waiting.wait(WAIT_S) == OK


def test_the_inbox_shows_the_newest_and_says_that_there_are_earlier_ones() -> None:
    """The last one last; the number in front is what `reply` takes."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        sent = [alice.send("bob", f"text {number}")[1]["client_message_id"] for number in range(5)]
        wait_received(bob, sent)
        shown = run(bob.home, "inbox", "-n", "2")
        assert [line.split()[-1] for line in shown.out.splitlines()[1:]] == ["3", "4"]
        assert "earlier messages than these 2" in shown.err
        assert run(bob.home, "inbox", "-n", "5").err == ""
        seq = shown.out.splitlines()[1].split()[0]
        answer = run(bob.home, "reply", seq, "got it", "--json").json["client_message_id"]
        wait_received(alice, [answer])
        (received,) = alice.inbox()
        assert received["reply_to_id"] == bob.inbox()[int(seq) - 1]["broker_message_id"]


def test_request_waits_for_a_daemon_that_restarts() -> None:
    """It goes on from its position; that no answer came is said only when the time is up."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        with begin(alice.home, "request", "bob", "may I deploy?", "--timeout", "120s") as asking:
            question = until(lambda: next(iter(bob.inbox()), None), "the question has arrived")
            alice.kill()
            fields = {"reply_to_id": question["broker_message_id"]}
            assert bob.send("alice", "go ahead", **fields)[0] == 202
            wait_done(bob, [item["client_message_id"] for item in bob.outbox().values()])
            alice.start()
            out, _ = asking.communicate(timeout=WAIT_S)
            assert (asking.returncode, out) == (OK, b"go ahead\n")


def test_only_the_one_that_was_asked_can_answer() -> None:
    """Another member that names the question's id does not speak for it."""
    with mesh("alice", "bob", "carol") as made:
        alice, bob, carol = made.daemons.values()
        with begin(alice.home, "request", "bob", "may I deploy?", "--timeout", "120s") as asking:
            question = until(lambda: next(iter(bob.inbox()), None), "the question has arrived")
            fields = {"reply_to_id": question["broker_message_id"]}
            sent = carol.send("alice", "yes, says carol", **fields)[1]["client_message_id"]
            wait_received(alice, [sent])
            bob.send("alice", "no", **fields)
            assert asking.communicate(timeout=WAIT_S)[0] == b"no\n"


def test_request_prints_the_reply(pair: Mesh) -> None:
    """bob answers by the id of what came in; alice's command prints only that answer."""
    alice, bob = homes(pair)

    def question() -> Any:
        items = run(bob, "inbox", "--json").json["items"]
        return next((item for item in items if item["body"] == "may I deploy?"), None)

    with begin(alice, "request", "bob", "may I deploy?", "--timeout", "120s") as asking:
        found = until(question, "the question has arrived")
        run(bob, "send", "alice", "something else")
        assert run(bob, "reply", found["broker_message_id"], "go ahead\n").code == OK
        out, err = asking.communicate(timeout=WAIT_S)
        assert (asking.returncode, out) == (OK, b"go ahead\n"), err
    assert run(bob, "reply", "no-such-id", "x").code == USAGE
    assert run(alice, "request", "bob", "anybody?", "--timeout", "1s").code == TEMPORARY


@pytest.mark.parametrize("times", [20_000, 100_000])
def test_request_with_a_text_that_is_larger_than_a_message_prints_the_reply(
    pair: Mesh, tmp_path: Path, times: int
) -> None:
    """The text travels as a file, and the larger one is given to the daemon as one. The command learns of the
    broker's acceptance all the same."""
    alice, bob = homes(pair)
    text = f"{times} times " + "a long question " * times
    (tmp_path / "question").write_text(text)

    def question() -> Any:
        items = run(bob, "inbox", "--json").json["items"]
        return next((item for item in items if item["body"].startswith(text[:1000])), None)

    with begin(alice, "request", "bob", "--file", str(tmp_path / "question"), "--timeout", "120s") as asking:
        found = until(question, "the question has arrived")
        assert run(bob, "reply", found["broker_message_id"], "go ahead\n").code == OK
        out, err = asking.communicate(timeout=WAIT_S)
        assert (asking.returncode, out) == (OK, b"go ahead\n"), err


def test_a_reply_to_a_post_goes_to_its_topic(pair: Mesh) -> None:
    """The reply is part of the conversation there."""
    alice, bob = homes(pair)
    sent = run(alice, "send", "#all", "a post", "--json").json["client_message_id"]
    wait_received(pair.daemons["bob"], [sent])
    answer = run(bob, "reply", sent, "an answer", "--json").json["client_message_id"]
    wait_done(pair.daemons["bob"], [answer])
    wait_received(pair.daemons["alice"], [answer])
    last = run(alice, "inbox", "--topic", "all", "--json").json["items"][-1]
    assert (last["body"], bool(last["reply_to_id"])) == ("an answer", True)


def test_ping_tells_who_is_here(pair: Mesh) -> None:
    """Exit 69 for one that is not, 64 for one that does not exist."""
    alice, _ = homes(pair)
    assert "bob is online" in run(alice, "ping", "bob").out
    assert run(alice, "ping", "nobody").code == USAGE
