"""Commands about receipts: wait for a state, list the states, and show a message on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from claudemesh.runtime.exits import OK, TEMPORARY, USAGE
from tests.support.cli import begin, run
from tests.support.processes import REPOSITORY, Mesh, mesh, until
from tests.support.waiting import WAIT_S


@pytest.fixture(scope="module")
def made() -> Generator[Mesh]:
    with mesh("alice", "bob") as running:
        yield running


def on_terminal(home: Path, *arguments: str) -> int:
    """Run a command with a terminal as its standard output; return its exit code."""
    master, terminal = pty.openpty()
    environment = {**os.environ, "CLAUDEMESH_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "claudemesh", *arguments]
    try:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=terminal)
        os.close(terminal)
        while True:
            try:
                if not os.read(master, 65_536):
                    break
            except OSError:
                break
        return process.wait(WAIT_S)
    finally:
        os.close(master)


def test_a_send_waits_until_a_terminal_has_shown_it(made: Mesh) -> None:
    """A pipe is no person: what it prints is not shown. The error at the end of the time says how far."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    waited = ["send", "bob", "look", "--id", "look", "--wait-for"]
    assert run(alice.home, *waited, "delivered", "--timeout", f"{WAIT_S:.0f}s").code == OK
    assert alice.send("bob", "look", client_message_id="person", receipt="shown")[0] == 202
    until(lambda: [item for item in bob.inbox() if item["client_message_id"] == "person"], "it arrives")
    assert run(bob.home, "inbox").code == OK
    late = run(alice.home, "wait", "--for", "message=person", "--state", "shown", "--timeout", "1s", "--json")
    assert (late.code, late.json["error"]) == (TEMPORARY, "timeout")
    until(
        lambda: alice.request("GET", "/v1/outbox/person")[1]["state"] == "delivered",
        "the receipt of delivery",
    )
    late = run(alice.home, "wait", "--for", "message=person", "--state", "shown", "--timeout", "1s", "--json")
    assert "delivered at bob" in late.json["message"]
    waiting = ["wait", "--for", "message=person", "--state", "shown", "--timeout", f"{WAIT_S:.0f}s", "--json"]
    with begin(alice.home, *waiting) as process:
        assert on_terminal(bob.home, "inbox") == OK
        assert process.wait(WAIT_S) == OK
    [shown] = run(alice.home, "status", "person", "--json").json["items"]
    assert [(one["name"], one["state"], one["session"]) for one in shown["recipients"]] == [
        ("bob", "shown", "terminal")
    ]
    assert "shown at bob in session terminal" in run(alice.home, "status", "person").out


def test_a_message_for_a_session_is_not_shown_by_a_terminal(made: Mesh) -> None:
    """It waits for its session."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    assert alice.send("bob/api", "for api", client_message_id="for-api", receipt="shown")[0] == 202
    until(lambda: [item for item in bob.inbox() if item["client_message_id"] == "for-api"], "it arrives")
    assert on_terminal(bob.home, "inbox") == OK
    [item] = [item for item in bob.inbox() if item["client_message_id"] == "for-api"]
    assert (item["shown_at"], item["seen_by"]) == (None, None)


def test_waiting_takes_states_and_refuses_the_rest(made: Mesh) -> None:
    """Nothing is sent by a command that is refused."""
    home = made.daemons["alice"].home
    assert run(home, "send", "bob", "x", "--id", "not-sent", "--wait-for", "read").code == USAGE
    assert run(home, "send", "bob", "x", "--id", "not-sent", "--timeout", "5s").code == USAGE
    assert run(home, "wait", "--for", "online", "--state", "shown").code == USAGE
    assert run(home, "status", "not-sent").code != OK
    unknown = run(home, "wait", "--for", "message=not-sent", "--state", "shown", "--timeout", "1s")
    assert (unknown.code, "holds no send with this id" in unknown.err) == (TEMPORARY, True)
    assert run(home, "send", "bob", "x", "--id", "sent", "--wait-for", "accepted").code == OK
