"""A disk that fails: the process ends, a supervisor starts it again, and nothing acknowledged is lost."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.audit import assert_contract
from tests.support.cli import run
from tests.support.faults import FaultyDisk
from tests.support.processes import Daemon, Mesh, mesh, until

INTERNAL = 70
TEMPORARY = 75


@pytest.fixture
def disk() -> Generator[FaultyDisk]:
    """A disk that fails on demand."""
    with tempfile.TemporaryDirectory(prefix="cm-") as folder:
        yield FaultyDisk(Path(folder))


def start(made: Mesh, disk: FaultyDisk) -> tuple[Daemon, Daemon]:
    """Start alice and bob on the disk, with a broker that is on it too."""
    made.broker.kill()
    for process in (made.broker, *made.daemons.values()):
        process.environment = disk.environment
    made.broker.start()
    made.broker.ready()
    alice, bob = made.daemons.values()
    for daemon in (alice, bob):
        daemon.start()
    for daemon in (alice, bob):
        daemon.ready()
    return alice, bob


def degraded(daemon: Daemon) -> dict[str, str]:
    """The conditions that a daemon's health shows: messages by code."""
    return {item["code"]: item["message"] for item in daemon.request("GET", "/v1/health")[1]["degraded"]}


def end_of(log: Path) -> str:
    """The last lines of a log."""
    return log.read_text()[-3000:]


def test_a_daemon_whose_outbox_fails_ends_and_the_next_start_goes_on(disk: FaultyDisk) -> None:
    """EIO on outbox.db: exit 70, restarts end with 75 while it lasts, then every accepted send arrives."""
    with mesh("alice", "bob", start=False) as made:
        alice, bob = start(made, disk)
        accepted = [f"before-{number}" for number in range(5)]
        for client_message_id in accepted:
            assert alice.send("bob", "text", client_message_id=client_message_id)[0] == 202
        disk.fail(errno.EIO, "outbox.db")
        assert alice.send("bob", "text", client_message_id="refused")[0] == 500
        assert alice.ended() == INTERNAL, end_of(alice.log)
        alice.start()
        assert alice.ended() == TEMPORARY, end_of(alice.log)
        assert "outbox.db" in alice.log.read_text().splitlines()[-1]
        disk.heal()
        alice.start()
        alice.ready()
        assert alice.send("bob", "text", client_message_id="refused")[0] == 202
        assert_contract(made, alice, [bob], [*accepted, "refused"])


def test_a_daemon_whose_inbox_fails_ends_and_the_messages_come_again(disk: FaultyDisk) -> None:
    """EIO on inbox.db: nothing is acknowledged to the broker, so the next start receives all of it, once."""
    with mesh("alice", "bob", start=False) as made:
        alice, bob = start(made, disk)
        disk.fail(errno.EIO, "inbox.db")
        sent = [f"during-{number}" for number in range(5)]
        for client_message_id in sent:
            assert alice.send("bob", "text", client_message_id=client_message_id)[0] == 202
        assert bob.ended() == INTERNAL, end_of(bob.log)
        disk.heal()
        bob.start()
        bob.ready()
        assert_contract(made, alice, [bob], sent)


def test_a_broker_whose_database_fails_ends_and_the_next_start_goes_on(disk: FaultyDisk) -> None:
    """EIO on broker.db: exit 70; what was acknowledged is there after the restart, the rest is sent again."""
    with mesh("alice", "bob", start=False) as made:
        alice, bob = start(made, disk)
        sent = [f"before-{number}" for number in range(5)]
        for client_message_id in sent:
            assert alice.send("bob", "text", client_message_id=client_message_id)[0] == 202
        disk.fail(errno.EIO, "broker.db")
        assert alice.send("bob", "text", client_message_id="during")[0] == 202
        assert made.broker.ended() == INTERNAL, end_of(made.broker.log)
        made.broker.start()
        assert made.broker.ended() == TEMPORARY, end_of(made.broker.log)
        disk.heal()
        made.broker.start()
        made.broker.ready()
        assert_contract(made, alice, [bob], [*sent, "during"])


def test_a_quota_that_is_used_up_is_a_full_disk_and_heals_without_a_restart(disk: FaultyDisk) -> None:
    """EDQUOT is no failing disk: sends get 507, messages wait at the broker, and all goes on by itself."""
    with mesh("alice", "bob", start=False) as made:
        alice, bob = start(made, disk)
        disk.fail(errno.EDQUOT, str(alice.root))
        status, answer = alice.send("bob", "text", client_message_id="one")
        assert (status, answer["error"]) == (507, "insufficient_storage")
        assert str(alice.root) in answer["message"]
        disk.fail(errno.EDQUOT, str(bob.root))
        until(lambda: alice.send("bob", "text", client_message_id="one")[0] in (200, 202), "alice goes on")
        message = until(lambda: degraded(bob).get("inbox_unavailable"), "bob says what is wrong")
        assert str(bob.root) in message
        disk.heal()
        assert_contract(made, alice, [bob], ["one"])
        until(lambda: not degraded(bob), "bob is well again")
        assert bob.log.read_text().count('"code":"inbox_unavailable","detail"') == 1
        assert alice.running
        assert bob.running


def test_a_daemon_with_no_room_for_messages_stops_when_it_is_told_to(disk: FaultyDisk) -> None:
    """Messages that cannot be stored do not hold SIGTERM up: they are at the broker and come again."""
    with mesh("alice", "bob", start=False) as made:
        alice, bob = start(made, disk)
        disk.fail(errno.ENOSPC, str(bob.root / "inbox.db"))
        assert alice.send("bob", "text", client_message_id="one")[0] == 202
        until(lambda: degraded(bob).get("inbox_unavailable"), "bob says what is wrong")
        assert bob.stop() == 0
        disk.heal()
        bob.start()
        bob.ready()
        assert_contract(made, alice, [bob], ["one"])


def test_a_command_that_cannot_write_its_files_says_which_and_why(disk: FaultyDisk) -> None:
    """Joining on a full disk: exit 75 with file, reason and remedy; the same command works afterwards."""
    with mesh("alice") as made:
        [alice] = made.daemons.values()
        invite = run(alice.home, "invite", "create", "--json").json["invite"]
        home = made.root / "carol"
        for part in ("keypair", "membership"):
            disk.fail(errno.ENOSPC, part)
            ran = run(home, "join", invite, "--name", "carol", full=True, **disk.environment)
            assert ran.code == TEMPORARY, ran
            assert str(home) in ran.err
            assert "the disk is full" in ran.err
            assert "free some space" in ran.err
            disk.heal()
        assert run(home, "join", invite, "--name", "carol", full=True, **disk.environment).code == 0


def test_a_log_that_cannot_be_written_stops_nothing(disk: FaultyDisk) -> None:
    """Its lines are lost; sends, deliveries and the exit code are as always."""
    with mesh("alice", "bob", start=False) as made:
        alice, bob = start(made, disk)
        disk.fail(errno.ENOSPC, str(alice.log))
        before = alice.log.read_bytes()
        assert alice.send("bob", "text", client_message_id="one")[0] == 202
        assert_contract(made, alice, [bob], ["one"])
        assert alice.stop() == 0
        # Not even that it has ended.
        assert alice.log.read_bytes() == before
