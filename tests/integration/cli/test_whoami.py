"""`whoami`: this host's member, as its files, its peers and its broker know it."""

from __future__ import annotations

import json
import platform

from tests.support.cli import homes, run
from tests.support.processes import Mesh, mesh, until

UNAVAILABLE = 69


def test_whoami_is_the_member_that_others_see(pair: Mesh) -> None:
    alice, bob = homes(pair)
    member = run(alice, "whoami", "--json").json
    seen = next(peer for peer in run(bob, "peers", "--json").json["items"] if peer["name"] == "alice")
    assert member["member_id"] == seen["member_id"]
    assert member["member_pubkey"] == seen["pubkey"]
    assert (member["name"], member["role"]) == ("alice", seen["role"])
    kept = json.loads((pair.daemons["alice"].root / "membership.json").read_text())
    assert {name: member[name] for name in ("mesh_id", "broker_url")} == {
        name: kept[name] for name in ("mesh_id", "broker_url")
    }
    assert (member["mesh"], member["host"], member["connected"]) == ("demo", platform.node(), True)


def test_whoami_shows_every_field_to_people(pair: Mesh) -> None:
    alice, _ = homes(pair)
    member = run(alice, "whoami", "--json").json
    shown = run(alice, "whoami").out
    for field in ("name", "mesh", "role", "member_id", "member_pubkey", "host", "broker_url"):
        assert member[field] in shown
    assert "(connected)" in shown


def test_whoami_and_the_lists_of_members_say_that_the_broker_is_away() -> None:
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        made.broker.stop()
        until(lambda: not run(alice.home, "whoami", "--json").json["connected"], "the link is down")
        assert "(not connected)" in run(alice.home, "whoami").out
        for command in (["peers"], ["member", "list"]):
            assert "whether a member is online is not known" in run(alice.home, *command).err
        alice.stop()
        assert run(alice.home, "whoami").code == UNAVAILABLE
