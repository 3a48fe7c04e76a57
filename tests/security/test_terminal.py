"""Text that another host wrote cannot drive or deceive a terminal, whichever command shows it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.audit import wait_received
from tests.support.processes import REPOSITORY, Mesh, mesh
from tests.support.waiting import WAIT_S

HOSTILE = "start\x1b]0;title\x07\x1b[2J\x9b31m\x7f\u202egpj.exe\u200bhidden\u2066\rover\tend"
# Allowed in our own output besides printable text: line ends of the terminal, tabs, colours.
OWN = re.compile(r"\r\n|\t|\x1b\[[0-9]*m")
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


@pytest.fixture(scope="module")
def pair() -> Generator[Mesh]:
    """Bob's summary and his messages, a direct one and one to a topic, are hostile."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        assert bob.request("POST", "/v1/profile", {"summary": "a\u202egpj\u200b"})[0] == 200
        ids = [
            bob.send("alice", HOSTILE)[1]["client_message_id"],
            bob.post("all", HOSTILE)[1]["client_message_id"],
        ]
        wait_received(alice, ids)
        alice.send("bob", HOSTILE, client_message_id="mine")
        yield made


def on_a_terminal(home: Path, *arguments: str) -> str:
    """Return the output of a command on a terminal, from stdout and stderr."""
    ours, theirs = pty.openpty()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")},
        "CLAUDEMESH_HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
        "TERM": "xterm",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "claudemesh", *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 65_536):
            parts.append(part)
    except OSError:
        pass  # The other end has closed.
    finally:
        os.close(ours)
        process.wait(WAIT_S)
    return b"".join(parts).decode()


@pytest.mark.parametrize(
    "command",
    [
        ["inbox"],
        ["inbox", "--json"],
        ["inbox", "show", "1"],
        ["peers"],
        ["peers", "--json"],
        ["daemon", "outbox", "list"],
        ["daemon", "outbox", "list", "--json"],
        ["daemon", "outbox", "inspect", "mine"],
        ["daemon", "outbox", "inspect", "mine", "--json"],
        ["send", HOSTILE, "x"],
        ["send", HOSTILE, "x", "--json"],
        ["topic", "list"],
        ["status"],
        ["status", "--json"],
        ["daemon", "metrics"],
        ["doctor"],
        [HOSTILE],
    ],
    ids=lambda command: " ".join(command).encode("unicode_escape").decode()[:40],
)
def test_no_command_lets_text_of_another_host_reach_the_terminal_raw(pair: Mesh, command: list[str]) -> None:
    shown = OWN.sub("", on_a_terminal(pair.daemons["alice"].home, *command))
    assert shown
    assert UNSAFE.findall(shown) == []


def test_a_listing_shows_the_hostile_text_spelt_out(pair: Mesh) -> None:
    """The reader sees that something is there, and a tab stays a tab."""
    shown = on_a_terminal(pair.daemons["alice"].home, "inbox", "show", "1")
    assert "\\x1b]0;title\\x07" in shown
    assert "\\u202egpj.exe" in shown
    assert "\\x0dover\tend" in shown
