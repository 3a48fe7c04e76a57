"""`claudemesh verify`: both hosts show the same digits, and the mark follows the keys."""

from __future__ import annotations

from tests.support.cli import run
from tests.support.processes import Daemon, mesh, until


def verified(daemon: Daemon, name: str) -> bool:
    """Whether a daemon shows a member as verified."""
    peers = daemon.request("GET", "/v1/peers")[1]["items"]
    return any(peer["name"] == name and peer["verified"] for peer in peers)


def test_two_people_compare_and_a_rotation_keeps_the_mark() -> None:
    """Also over a restart. The digits after the rotation are others, and the same on both hosts again."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        digits = run(alice.home, "verify", "bob").out.splitlines()[0]
        assert run(bob.home, "verify", "@alice").out.splitlines()[0] == digits
        assert not verified(alice, "bob")
        assert run(alice.home, "verify", "bob", "--confirm", "--json").json["verified"] is True
        assert verified(alice, "bob")
        assert not verified(bob, "alice")
        before = bob.request("GET", "/v1/whoami")[1]["member_pubkey"]
        run(bob.home, "daemon", "rotate-keypair")

        def follows() -> bool:
            peers = alice.request("GET", "/v1/peers")[1]["items"]
            return all(peer["pubkey"] != before for peer in peers)

        until(follows, "alice follows the rotation")
        assert verified(alice, "bob")
        alice.stop()
        alice.start()
        alice.ready()
        assert verified(alice, "bob")
        after = run(alice.home, "verify", "bob").out.splitlines()[0]
        assert after != digits
        assert run(bob.home, "verify", "alice").out.splitlines()[0] == after


def test_an_unknown_member_and_oneself_are_refused() -> None:
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        assert run(alice.home, "verify", "nobody-here").code == 64
        assert "cannot verify itself" in run(alice.home, "verify", "alice").err
