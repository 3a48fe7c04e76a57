"""A member's keys on another host: the member, and the owner of the mesh, are told what to do."""

from __future__ import annotations

import asyncio
from typing import Any

from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import load_membership
from tests.support.processes import Daemon, mesh, until
from tests.support.wspeer import Peer

ELSEWHERE = "ef" * 32


def copy_of(daemon: Daemon) -> Peer:
    """Return a host with a copy of a member's directory."""
    membership = load_membership(daemon.root / "membership.json")
    return Peer(
        membership.name,
        Keyring.load(daemon.root / "keypair.json").current,
        membership.mesh_id,
        membership.slug,
        membership.member_id,
        membership.broker_url,
    )


def suspicion(daemon: Daemon) -> dict[str, Any] | None:
    """Return a daemon's condition about suspected copies."""
    _, health = daemon.request("GET", "/v1/health")
    return next((item for item in health["degraded"] if item["code"] == "clone_suspected"), None)


def test_owner_and_member_are_told_of_a_suspected_clone() -> None:
    """The owner while the copy is connected, the member itself at its next start, and no other member."""
    with mesh("alice", "bob", "eve") as made:
        alice, bob, eve = (made.daemons[name] for name in ("alice", "bob", "eve"))
        bob.stop()

        async def connect_elsewhere() -> None:
            async with copy_of(bob).connect(hello={"host_fingerprint": ELSEWHERE}) as link:
                await link.settle()
                told = await link.event("member_clone_suspected")
                assert (told["name"], told["outcome"]) == ("bob", "admitted")

        asyncio.run(connect_elsewhere())
        seen = until(lambda: suspicion(alice), "the owner is told")
        assert "bob" in seen["message"] and "member revoke" in seen["message"]
        bob.start()
        bob.ready()
        own = until(lambda: suspicion(bob), "the member is told")
        assert "This member has connected from another host" in own["message"]
        assert suspicion(eve) is None
        assert "clone_suspected" in made.cli(alice, "status")
        metrics = alice.connection()
        metrics.request("GET", "/v1/metrics")
        # The way back of the member itself is part of the same case.
        assert b"cm_daemon_clone_suspected_total 1.0" in metrics.getresponse().read()
        metrics.close()
