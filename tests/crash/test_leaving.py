"""Leaving and resetting, killed at each step (docs/spec/lifecycle.md, Leaving and revoking)."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.cli import run, run_armed
from tests.support.processes import Mesh, mesh, until

PERMISSION = 77


def killed_at(home: Path, failpoint: str, hit: int, *arguments: str) -> bool:
    """Run a command that a failpoint may kill; tell whether it did."""
    done = run_armed(home, f"{failpoint}=kill@{hit}", *arguments)
    assert done.code in (0, -signal.SIGKILL), done.err
    return done.code != 0


def is_gone(made: Mesh, home: Path) -> bool:
    """Whether nothing of the mesh is left on the host, and the name is free for it."""
    alice = made.daemons["alice"]
    assert run(home, "mesh", "list", "--json").json["items"] == []
    until(
        lambda: [item["name"] for item in run(alice.home, "peers", "--json").json["items"]] == ["alice"],
        "the departure at the other host",
    )
    link = run(alice.home, "invite", "create", "--json").json["invite"]
    joined = run(home, "join", link, "--name", "bob")
    return joined.code == 0


@pytest.mark.parametrize(
    ("failpoint", "hits"), [("wipe.after_file", (1, 4)), ("wipe.after_membership", (1, 2, 3))]
)
def test_a_kill_while_leaving_leaves_a_host_that_is_gone_or_says_so(
    failpoint: str, hits: tuple[int, ...]
) -> None:
    """Its daemon never starts as a member that the mesh does not have, and a second leave ends the work."""
    with mesh("alice", "bob", start=False) as made:
        made.daemons["alice"].start()
        made.daemons["alice"].ready()
        bob = made.daemons["bob"].home
        for hit in hits:
            assert killed_at(bob, failpoint, hit, "leave", "--yes")
            if (bob / "daemon" / "demo" / "membership.json").exists():
                again = run(bob, "up")
                assert (again.code, "has left mesh demo" in again.err) == (PERMISSION, True)
                assert run(bob, "leave", "--yes").code == 0
                assert not (bob / "daemon" / "demo").exists()
            assert is_gone(made, bob)


def test_a_daemon_that_is_killed_after_the_broker_let_it_leave_finds_that_out() -> None:
    """The broker's answer was lost: the next start notes the end of the membership, and exits with 77."""
    with mesh("alice", "bob") as made:
        bob = made.daemons["bob"]
        status, _ = bob.request("POST", "/v1/leave", {})
        assert status == 200
        assert bob.ended() == PERMISSION
        (bob.root / "ended.json").unlink()
        bob.start()
        assert bob.ended() == PERMISSION
        assert (bob.root / "ended.json").exists()
        assert run(bob.home, "leave", "--yes").code == 0
        assert is_gone(made, bob.home)


def test_a_kill_while_resetting_leaves_a_daemon_that_works() -> None:
    """Whichever files are gone: the host is the same member, and receives what comes."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        before = run(bob.home, "whoami", "--json").json["member_pubkey"]
        bob.stop()
        for hit in (1, 3, 6, 9, 12):
            assert killed_at(bob.home, "reset.after_file", hit, "daemon", "reset", "--yes")
            bob.start()
            bob.ready()
            assert run(bob.home, "whoami", "--json").json["member_pubkey"] == before
            assert run(alice.home, "send", "bob", f"message {hit}").code == 0
            until(
                lambda text=f"message {hit}": any(item["body"] == text for item in bob.inbox()), "the message"
            )
            bob.stop()
