"""A host whose membership has ended: each command names the end, and the command that removes the rest."""

from __future__ import annotations

import pytest

from tests.support.cli import begin, run, run_armed
from tests.support.living import is_connected
from tests.support.processes import Daemon, Mesh, mesh, until
from tests.support.waiting import WAIT_S

KILLED, OK, UNAVAILABLE, PERMISSION = -9, 0, 69, 77

COMMANDS = [
    ["status"],
    ["inbox"],
    ["peers"],
    ["send", "alice", "hello"],
    ["send", "alice", "--lines"],
    ["request", "alice", "hello"],
    ["listen"],
    ["events"],
    ["wait", "--for", "online"],
    ["wait", "--for", "message=x", "--state", "shown"],
]


def revoke(made: Mesh, name: str) -> None:
    """Revoke a member as the operator of the broker."""
    command = ("broker", "member", "revoke", made.slug, name, "--broker", made.broker.url)
    token = ("--admin-token-file", str(made.broker.data / "admin_token"))
    revoked = run(made.daemons["alice"].home, *command, *token)
    assert revoked.code == OK, revoked.err


def refuses(daemon: Daemon, code: str) -> None:
    """Each command ends with the exit code, the error and the remedy of `daemon up`."""
    remedy = f"claudemesh leave --mesh {daemon.root.name}"
    for command in (["daemon", "up"], *COMMANDS):
        done = run(daemon.home, *command)
        assert (done.code, done.out) == (PERMISSION, ""), (command, done)
        assert done.err.splitlines()[-1] == f"try: {remedy}", (command, done)
    status = run(daemon.home, "status", "--json").json
    assert (status["error"], status["next"]) == (code, remedy)
    [row] = run(daemon.home, "status", "--all", "--json").json["items"]
    assert (row["state"], row["detail"]) == ("down", status["message"])
    findings = {item["check"]: item for item in run(daemon.home, "doctor", "--json").json["items"]}
    assert (findings["daemon"]["code"], findings["daemon"]["next"]) == (code, remedy)


def test_a_revoked_member_is_told_so_by_every_command() -> None:
    """No command waits for a daemon that cannot start, or asks for its start."""
    with mesh("alice", "bob") as made:
        bob = made.daemons["bob"]
        revoke(made, "bob")
        assert bob.ended() == PERMISSION
        refuses(bob, "revoked")
        assert run(bob.home, "leave", "--yes").code == OK


def test_a_host_that_has_left_is_told_so_until_its_files_are_deleted() -> None:
    """The deletion was cut off; `leave` finishes it."""
    with mesh("alice", "bob") as made:
        bob = made.daemons["bob"]
        assert run_armed(bob.home, "wipe.after_file=kill", "leave", "--yes").code == KILLED
        refuses(bob, "left")
        assert run(bob.home, "leave", "--yes").code == OK
        assert not bob.root.exists()


@pytest.mark.parametrize("command", [["listen"], ["events"], ["inbox", "-f"]], ids=lambda one: one[0])
def test_a_follower_ends_when_the_member_is_revoked(command: list[str]) -> None:
    """It continues over a restart, and does not wait for a daemon that never comes back."""
    with mesh("alice", "bob") as made:
        bob = made.daemons["bob"]
        with begin(bob.home, *command) as process:
            until(lambda: is_connected(process.pid), "it follows")
            revoke(made, "bob")
            _, err = process.communicate(timeout=WAIT_S)
        assert process.returncode == PERMISSION, err
        assert "was revoked" in err.decode()
