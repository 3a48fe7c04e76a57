"""A year in the life of a mesh, by the commands that people type: after each step the hosts say who is there.

The wall clocks of all processes go on by a month between the steps, so that nothing of it rests on them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.audit import assert_no_orphans
from tests.support.cli import Ran, run
from tests.support.copies import Directory, copy_running
from tests.support.faketime import FakeClock
from tests.support.processes import Daemon, Mesh, mesh, until

PERMISSION, CONFIGURATION = 77, 78
_MONTH_DAYS = 30


@dataclass
class Year:
    """A mesh whose processes share one wall clock, which goes on by months."""

    made: Mesh
    clock: FakeClock
    months: int = 0
    # The hosts that take part, by the name of their folder.
    hosts: dict[str, Daemon] = field(default_factory=dict)

    def run(self, host: Daemon, *arguments: str, right_clock: bool = False, **environment: str) -> Ran:
        """Run a command on a host, under the clock of the year or under the real one."""
        return run(host.home, *arguments, **({} if right_clock else self.clock.variables), **environment)

    def do(self, host: Daemon, *arguments: str, right_clock: bool = False) -> Any:
        """Run a command that succeeds; return its JSON."""
        done = self.run(host, *arguments, "--json", right_clock=right_clock)
        assert done.code == 0, (arguments, done.out, done.err)
        return done.json

    def refused(self, host: Daemon, *arguments: str) -> dict[str, Any]:
        """Run a command that is refused; return its error."""
        done = self.run(host, *arguments, "--json")
        assert done.code != 0, (arguments, done.out)
        error: dict[str, Any] = done.json
        return error

    def host(self, name: str) -> Daemon:
        """Return a host that is not a member yet."""
        daemon = Daemon(self.made.root, name, self.made.slug)
        daemon.environment |= self.clock.variables
        return daemon

    def join(self, by: Daemon, name: str, *options: str, folder: str | None = None) -> Daemon:
        """Let a new host join by an invite of a member, and start it."""
        link = self.do(by, "invite", "create", *options)["invite"]
        daemon = self.host(folder or name)
        self.do(daemon, "join", link, "--name", name)
        self.start(daemon)
        return daemon

    def start(self, daemon: Daemon) -> None:
        """Start a daemon and keep it running from month to month."""
        self.hosts[daemon.home.name] = daemon
        daemon.start()
        daemon.ready()

    def gone(self, daemon: Daemon) -> None:
        """Leave a host out of what follows."""
        del self.hosts[daemon.home.name]

    def month(self) -> None:
        """Let a month pass while all is off, as over a holiday."""
        for daemon in self.hosts.values():
            daemon.stop()
        self.made.broker.stop()
        self.months += 1
        self.clock.shift(days=self.months * _MONTH_DAYS)
        self.made.broker.start()
        self.made.broker.ready()
        for daemon in self.hosts.values():
            daemon.start()
        for daemon in self.hosts.values():
            daemon.ready()

    def names(self, daemon: Daemon) -> set[str]:
        """The active members as a host lists them."""
        return {item["name"] for item in self.do(daemon, "peers")["items"]}

    def all_see(self, *names: str) -> None:
        """Wait until every host lists exactly these active members."""
        for daemon in self.hosts.values():
            until(lambda daemon=daemon: self.names(daemon) == set(names), f"{daemon.name} sees {names}")

    def talk(self, sender: Daemon, to: str, recipient: Daemon, text: str) -> None:
        """Send by name, wait for the broker's word, and see it in the other inbox once."""
        self.do(sender, "send", to, text, "--wait", "30000")
        until(lambda: self.received(recipient).count(text) == 1, f"{to} has {text!r}")

    def received(self, daemon: Daemon) -> list[str]:
        return [item["body"] for item in daemon.inbox()]


@pytest.fixture
def year() -> Generator[Year]:
    """A broker and its first member; the clock is right."""
    with mesh(start=False) as made:
        clock = FakeClock(made.root / "clock")
        made.broker.stop()
        made.broker.environment |= clock.variables
        made.broker.start()
        made.broker.ready()
        found = Year(made, clock)
        try:
            yield found
        finally:
            for daemon in found.hosts.values():
                if daemon.running:
                    daemon.kill()


@pytest.mark.slow
def test_a_mesh_lives_through_a_year(year: Year) -> None:
    """Founded, grown, keys rotated, hosts moved, lost, copied and retired: nothing is lost on the way."""
    # Founded, and grown.
    alice = year.host("alice")
    token = str(year.made.broker.data / "admin_token")
    create = ("mesh", "create", year.made.slug, "--broker", year.made.broker.url, "--name", "alice")
    year.do(alice, *create, "--admin-token-file", token)
    year.start(alice)
    bob = year.join(alice, "bob")
    dave = year.join(alice, "dave", "--role", "admin")
    year.all_see("alice", "bob", "dave")

    # Keys are rotated each week of a month; a message to the old key waits meanwhile.
    for week in range(4):
        bob.stop()
        year.do(alice, "send", "bob", f"week {week}")
        key = year.do(alice, "whoami")["member_pubkey"]
        year.do(alice, "daemon", "rotate-keypair")
        assert year.do(alice, "whoami")["member_pubkey"] != key
        bob.start()
        bob.ready()
        until(lambda week=week: f"week {week}" in year.received(bob), "bob has it")
        year.talk(bob, "alice", alice, f"answer {week}")
    year.month()
    year.all_see("alice", "bob", "dave")

    # A host is renamed.
    year.do(dave, "daemon", "rename", "david")
    year.all_see("alice", "bob", "david")
    year.talk(bob, "david", dave, "hello under the new name")
    year.month()

    # A host is lost, and revoked by the owner; the broker and the members refuse it.
    year.do(alice, "member", "revoke", "david", "--yes")
    assert dave.ended() == PERMISSION
    year.gone(dave)
    dave.start()
    assert dave.ended() == PERMISSION
    year.all_see("alice", "bob")
    assert year.refused(bob, "send", "david", "x")["error"] == "destination_not_found"

    # Its name is free for another host.
    david = year.join(alice, "david")
    assert year.refused(bob, "send", "david", "for the old one?")["error"] == "name_rebound"
    for daemon in (alice, bob):
        year.do(daemon, "peers", "accept", "david")
    year.talk(bob, "david", david, "for the new one")
    year.month()

    # A host breaks. Its successor takes the name over by an invite that says so, and no host asks.
    year.gone(david)
    david.kill()
    year.do(alice, "member", "revoke", "david", "--yes")
    link = year.do(alice, "invite", "create", "--name", "david", "--replace")["invite"]
    successor = year.host("successor")
    year.do(successor, "join", link)
    year.start(successor)
    year.all_see("alice", "bob", "david")
    year.talk(bob, "david", successor, "for the successor")
    year.month()

    # CI jobs come and go, on machines whose clock is months behind.
    for_jobs = ("--uses", "100", "--expires", "30d", "--ephemeral-only")
    link = year.do(alice, "invite", "create", *for_jobs)["invite"]
    for job in range(3):
        inside = [sys.executable, "-m", "claudemesh", "send", "bob", f"job {job}"]
        command = ("run", "--name", f"ci-{job}", "--", *inside)
        done = year.run(year.host("ci"), *command, right_clock=True, CLAUDEMESH_INVITE=link)
        assert done.code == 0, done.err
    until(lambda: {f"job {job}" for job in range(3)} <= set(year.received(bob)), "bob has all jobs")
    year.all_see("alice", "bob", "david")
    year.month()

    # An image of a host is started elsewhere: it refuses, then becomes a member of its own.
    copy_running(bob, year.made.root / "copy")
    copy = year.host("copy")
    (copy.root / "config.toml").write_text('[clone]\nid_override = "another host"\n')
    copy.start()
    assert copy.ended() == CONFIGURATION
    link = year.do(alice, "invite", "create")["invite"]
    year.do(copy, "daemon", "remint", "--invite", link, "--name", "bobby")
    year.start(copy)
    year.all_see("alice", "bob", "bobby", "david")
    year.talk(copy, "bob", bob, "from the copy")
    year.month()

    # A disk dies. The member comes back from its backup, and finds what was sent to it meanwhile.
    secret, kept = year.made.root / "secret", year.made.root / "bob.backup"
    secret.write_text("a passphrase of some length\n")
    secret.chmod(0o600)
    year.do(bob, "daemon", "backup", "--out", str(kept), "--passphrase-file", str(secret))
    bob.kill()
    shutil.rmtree(bob.home)
    year.do(alice, "send", "bob", "while the disk was away")
    year.do(bob, "daemon", "restore", "--in", str(kept), "--passphrase-file", str(secret))
    year.start(bob)
    until(lambda: "while the disk was away" in year.received(bob), "bob has it")
    year.talk(bob, "alice", alice, "from the backup")
    year.month()

    # An inbox is damaged. It is filled again with what the broker keeps.
    before = set(year.received(bob))
    bob.stop()
    (bob.root / "inbox.db").write_bytes(b"no database at all" * 1000)
    assert year.do(bob, "daemon", "recover", "--yes")["status"] == "recovered"
    bob.start()
    bob.ready()
    until(lambda: before <= set(year.received(bob)), "bob has its messages again")
    year.talk(alice, "bob", bob, "after the damage")

    # The broker is restored from a copy; what it had accepted since arrives all the same.
    year.made.broker.stop()
    backup = Directory(year.made)
    backup.take()
    year.made.broker.start()
    year.made.broker.ready()
    year.talk(alice, "bob", bob, "after the copy")
    year.do(alice, "daemon", "rotate-keypair")
    year.made.broker.stop()
    backup.put_back()
    year.made.broker.start()
    year.made.broker.ready()
    year.talk(bob, "alice", alice, "after the restore")
    year.talk(alice, "bob", bob, "under the newest key")
    year.month()

    # The founder leaves; the mesh goes on under another owner.
    assert year.refused(alice, "leave", "--yes")["error"] == "last_owner"
    year.do(alice, "member", "role", "bob", "owner")
    year.do(alice, "leave", "--yes", right_clock=True)
    assert alice.ended() in (0, PERMISSION)
    year.gone(alice)
    assert not alice.root.exists()
    year.all_see("bob", "bobby", "david")
    erin = year.join(bob, "erin")
    year.talk(erin, "bob", bob, "hello from the newest")
    assert_no_orphans(year.made)
