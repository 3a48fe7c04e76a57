"""Ends of a command that are not errors: Ctrl-C, and a closed reader of its output."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.audit import wait_received
from tests.support.cli import begin, homes, run
from tests.support.living import is_connected
from tests.support.processes import Mesh, mesh, until
from tests.support.waiting import WAIT_S

OK = 0


@pytest.mark.parametrize(
    "command",
    [
        ["listen"],
        ["inbox", "-f", "--no-headers"],
        ["events"],
        ["request", "bob", "are you there?"],
        ["send", "bob", "are you there?", "--wait", "30000"],
        ["wait", "--for", "peer=bob"],
    ],
    ids=lambda command: command[0],
)
def test_an_interrupted_command_ends_silently_with_130(command: list[str]) -> None:
    """As the shell says it of Ctrl-C: no traceback, and nothing that asks for another try."""
    with mesh("alice", "bob", start=False) as made:
        alice = made.daemons["alice"]
        alice.start()
        alice.ready()
        made.broker.kill()
        until(lambda: not alice.request("GET", "/v1/health")[1]["connected"], "the link is down")
        with begin(alice.home, *command) as process:
            until(lambda: is_connected(process.pid), "the command asks its daemon")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=WAIT_S)
            assert (process.returncode, out, err) == (130, b"", b"")


def test_a_listing_ends_well_when_its_reader_has_gone(pair: Mesh) -> None:
    """Exit 0 and no word, whenever the pipe breaks."""
    alice, bob = homes(pair)
    for number in range(3):
        sent = run(alice, "send", "bob", f"{number} " + "x" * 100_000, "--json").json["client_message_id"]
        wait_received(pair.daemons["bob"], [sent])
    for command in (["inbox"], ["inbox", "--json"], ["daemon", "metrics"], ["--help"]):
        with begin(bob, *command) as listing:
            assert listing.stdout is not None and listing.stderr is not None
            listing.stdout.close()
            assert (listing.wait(WAIT_S), listing.stderr.read()) == (OK, b""), command


FOLLOWERS = [
    ["events", "--from", "bob", "--topic", "deploys"],
    ["inbox", "-f", "--no-headers", "--grep", "no such text", "--mark-read"],
    ["logs", "-f", "--level", "error"],
]


def is_following(pid: int, log: Path) -> bool:
    """Whether a command is connected to its daemon, or has opened the log."""
    opened = {os.readlink(descriptor) for descriptor in Path(f"/proc/{pid}/fd").iterdir()}
    return str(log) in opened or is_connected(pid)


@pytest.mark.parametrize("command", FOLLOWERS, ids=lambda command: command[0])
def test_a_follower_that_has_nothing_to_print_ends_with_its_reader_or_by_ctrl_c(
    pair: Mesh, command: list[str]
) -> None:
    """0 without a reader, 130 by Ctrl-C, and no word: no line has to arrive first."""
    daemon = pair.daemons["alice"]
    log = daemon.root / "daemon.log"
    log.touch(mode=0o600)
    with begin(daemon.home, *command) as following:
        assert following.stdout is not None and following.stderr is not None
        until(lambda: is_following(following.pid, log.resolve()), "it follows")
        following.stdout.close()
        assert (following.wait(WAIT_S), following.stderr.read()) == (OK, b"")
    with begin(daemon.home, *command) as following:
        until(lambda: is_following(following.pid, log.resolve()), "it follows")
        following.send_signal(signal.SIGINT)
        out, err = following.communicate(timeout=WAIT_S)
        assert (following.returncode, out, err) == (130, b"", b"")
