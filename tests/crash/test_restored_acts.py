"""Acts of members that a restored broker has lost come back (docs/spec/daemon.md, After a restore)."""

from __future__ import annotations

import json
from typing import Any

from tests.support.copies import Directory
from tests.support.processes import Daemon, Mesh, mesh, until


def listed(made: Mesh) -> dict[str, tuple[str, str]]:
    """Return the role and the status of each member as the broker has them, by name."""
    owner, token = next(iter(made.daemons.values())), str(made.broker.data / "admin_token")
    at = ("--broker", made.broker.url, "--admin-token-file", token)
    members = json.loads(made.cli(owner, "broker", "member", "list", made.slug, "--json", *at))["items"]
    return {one["name"]: (one["role"], one["status"]) for one in members}


def act(daemon: Daemon, path: str, body: Any) -> None:
    """Do an act of a member."""
    status, answer = daemon.request("POST", path, body)
    assert status == 200, answer


def test_a_name_a_role_and_revocations_that_a_restore_has_lost_are_in_force_again() -> None:
    """Their statements are on the hosts of owners and admins, and a host knows its own name."""
    with mesh("alice", "bob", "carol", "dave") as made:
        alice, bob, carol, dave = made.daemons.values()
        made.broker.stop()
        copy = Directory(made)
        copy.take()
        made.broker.start()
        made.broker.ready()
        for daemon in made.daemons.values():
            daemon.ready()
        act(alice, "/v1/members/role", {"member": "bob", "role": "admin"})
        until(lambda: bob.request("GET", "/v1/whoami")[1]["role"] == "admin", "bob is an admin")
        act(carol, "/v1/rename", {"name": "caroline"})
        # By the admin, whose own role is lost too.
        act(bob, "/v1/members/revoke", {"member": "dave"})
        assert dave.ended() == 77
        expected = {
            "alice": ("owner", "active"),
            "bob": ("admin", "active"),
            "caroline": ("member", "active"),
            "dave": ("member", "revoked"),
        }
        until(lambda: "caroline" in str(alice.request("GET", "/v1/peers")), "alice knows the new name")
        until(lambda: listed(made) == expected, "the broker has all of it")
        made.broker.stop()
        copy.put_back()
        made.broker.start()
        made.broker.ready()
        for daemon in (alice, bob, carol):
            daemon.ready()
        until(lambda: listed(made) == expected, "the broker has all of it again")
        for daemon in (alice, bob, carol):
            peers = daemon.request("GET", "/v1/members")[1]["items"]
            until(lambda one=daemon: "caroline" in str(one.request("GET", "/v1/peers")), "the name is back")
            assert {one["name"]: one["status"] for one in peers}["dave"] == "revoked"
        assert json.loads((carol.root / "membership.json").read_text())["name"] == "caroline"
