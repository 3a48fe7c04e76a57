"""`listen`, `inbox -f` and `events`: over restarts, until the reader of stdout has gone or Ctrl-C."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.support.audit import wait_received
from tests.support.cli import begin, homes, run
from tests.support.processes import Daemon, Mesh, mesh, until
from tests.support.waiting import WAIT_S

OK, USAGE, TEMPORARY = 0, 64, 75


def test_following_the_inbox_misses_nothing_and_repeats_nothing() -> None:
    """Messages pour in while it starts; filters hold for what follows, too."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        made.cli(bob, "topic", "create", "deploys")
        made.cli(bob, "topic", "subscribe", "deploys")
        count = 200

        def pour() -> None:
            for number in range(count):
                alice.send("bob", "not this") if number % 3 else alice.post("deploys", f"{number}")

        with (
            begin(bob.home, "inbox", "-f", "--json", "--topic", "#deploys", "--from", "@Alice") as following,
            ThreadPoolExecutor() as pool,
        ):
            done = pool.submit(pour)
            assert following.stdout is not None
            wanted = [str(number) for number in range(0, count, 3)]
            assert [json.loads(following.stdout.readline())["body"] for _ in wanted] == wanted
            done.result()


@pytest.mark.parametrize("end", [Daemon.kill, Daemon.stop], ids=["killed", "stopped"])
def test_listen_prints_each_message_once_over_a_restart(end: Callable[[Daemon], object]) -> None:
    """A JSON line each; the daemon may go and come, and end its stream in order or not."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        with begin(bob.home, "listen", "--since", "0") as listening:
            assert listening.stdout is not None
            alice.send("bob", "one")
            assert json.loads(listening.stdout.readline())["body"] == "one"
            end(bob)
            alice.send("bob", "two")
            bob.start()
            bob.ready()
            alice.send("bob", "three")
            assert [json.loads(listening.stdout.readline())["body"] for _ in range(2)] == ["two", "three"]


def is_followed(daemon: Daemon) -> bool:
    """Whether a client follows the event stream, and has got its position."""
    with closing(daemon.connection()) as connection:
        connection.request("GET", "/v1/metrics")
        return "\ncm_daemon_event_streams 1" in connection.getresponse().read().decode()


@pytest.mark.parametrize("command", [["listen"], ["inbox", "-f", "--json"], ["events", "--json"]])
def test_a_follower_whose_daemon_restarts_before_its_first_line_misses_nothing(command: list[str]) -> None:
    """It has a position from the first moment on."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        with begin(bob.home, *command) as follower:
            until(lambda: is_followed(bob), "the stream is open")
            bob.kill()
            alice.send("bob", "while it was away")
            bob.start()
            bob.ready()
            wait_received(bob, [item["client_message_id"] for item in alice.outbox().values()])
            alice.send("bob", "and after")
            assert follower.stdout is not None
            lines = (json.loads(line) for line in follower.stdout)
            items = (line.get("data", line) for line in lines if line.get("event", "message") == "message")
            assert [next(items)["body"] for _ in range(2)] == ["while it was away", "and after"]


def test_listen_acknowledges_what_it_has_written() -> None:
    """Started again, it goes on with the first message that it has not written."""
    with mesh("alice", "bob") as made:
        alice, bob = homes(made)
        for text in ("one", "two", "three"):
            sent = run(alice, "send", "bob", text, "--json").json["client_message_id"]
            wait_received(made.daemons["bob"], [sent])
        assert run(bob, "listen", "--ack", "--one").json["body"] == "one"
        assert run(bob, "listen", "--since", "unread", "--one").json["body"] == "two"
        with begin(bob, "listen", "--ack") as listening:
            assert listening.stdout is not None
            bodies = [json.loads(listening.stdout.readline())["body"] for _ in range(2)]
            assert bodies == ["two", "three"]
            until(lambda: run(bob, "inbox", "--unread", "-q").out == "", "both are acknowledged")


def test_listen_for_one_message_ends_with_75_when_none_comes(pair: Mesh) -> None:
    """The error says so; a duration that is none is refused."""
    _, bob = homes(pair)
    done = run(bob, "listen", "--one", "--timeout", "1s")
    assert (done.code, done.out) == (TEMPORARY, "")
    assert "within 1 s" in done.err
    assert run(bob, "listen", "--one", "--timeout", "soon").code == USAGE
    assert run(bob, "listen", "--since", "soon").code == USAGE


@pytest.mark.parametrize(
    "command", [["listen", "--since", "0"], ["inbox", "-f"], ["events", "--since", "0"]], ids=lambda c: c[0]
)
def test_a_follower_ends_when_its_reader_has_gone(pair: Mesh, command: list[str]) -> None:
    """As in `| head -1`: at once, although nothing more is written, with exit 0 and without a word."""
    alice, bob = homes(pair)
    sent = run(alice, "send", "bob", "one line", "--json").json["client_message_id"]
    wait_received(pair.daemons["bob"], [sent])
    with begin(bob, *command) as follower:
        assert follower.stdout is not None and follower.stderr is not None
        assert follower.stdout.readline()
        follower.stdout.close()
        assert (follower.wait(WAIT_S), follower.stderr.read()) == (OK, b"")
