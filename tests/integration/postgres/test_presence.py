"""Presence when the members of a mesh are connected to several brokers."""

from __future__ import annotations

from pathlib import Path

from claudemesh.broker.settings import Limits
from tests.integration.postgres.test_cluster import at, brokers
from tests.support.broker import create_mesh, join_mesh
from tests.support.postgres import sql
from tests.support.watcher import watching
from tests.support.wspeer import Link


async def test_every_broker_tells_of_the_members_of_all(tmp_path: Path) -> None:
    """A new connection gets the members at other brokers at once, and all others get its coming and going."""
    async with brokers(tmp_path, limits=Limits(sweep_s=3600)) as ((one, two), _):
        ada = await create_mesh(one)
        bob, eve = await join_mesh(ada, "bob"), await join_mesh(ada, "eve")
        async with watching(ada) as seen_by_ada:
            async with watching(at(bob, two)) as seen_by_bob:
                await seen_by_bob.sees(ada, bob)
                await seen_by_ada.sees(ada, bob)
                async with watching(at(eve, two)) as seen_by_eve:
                    await seen_by_eve.sees(ada, bob, eve)
                    await seen_by_ada.sees(ada, bob, eve)
                await seen_by_ada.sees(ada, bob)
                await seen_by_bob.sees(ada, bob)
            await seen_by_ada.sees(ada)


async def shown(link: Link, name: str) -> tuple[object, ...]:
    """Return the presence and the profile of a member, as a list shows them."""
    [item] = [one for one in (await link.call("peers"))["ok"]["items"] if one["name"] == name]
    fields = ("summary", "presence_status", "sessions", "last_seen_at")
    return (item["online"], *(item.get(field) for field in fields))


async def test_an_invisible_member_is_seen_at_no_broker(tmp_path: Path) -> None:
    """Its broker says so to the others with its arrival, and again when it changes its mind.

    The lists of both brokers hide its profile and presence, from those that are there and from newcomers.
    """
    async with brokers(tmp_path, limits=Limits(sweep_s=0.2)) as ((one, two), _):
        ada = await create_mesh(one)
        bob, eve = await join_mesh(ada, "bob"), await join_mesh(ada, "eve")
        cards = [{"name": "a", "client": "codex", "state": "idle", "reach": "pull"}]
        async with watching(ada) as seen_by_ada, watching(at(bob, two)) as seen_by_bob:
            await seen_by_ada.sees(ada, bob)
            await seen_by_bob.link.call("profile", visible=False, summary="x", status="busy", sessions=cards)
            await seen_by_ada.sees(ada)
            for broker in (one, two):
                async with watching(at(eve, broker)) as seen_by_eve:
                    await seen_by_eve.sees(ada, eve)
                    await seen_by_ada.sees(ada, eve)
                    for link in (seen_by_ada.link, seen_by_eve.link):
                        assert await shown(link, "bob") == (False, None, None, None, None)
                await seen_by_ada.sees(ada)
            async with at(eve, two).connect():
                await seen_by_ada.sees(ada, eve)
            await seen_by_ada.sees(ada)
            await seen_by_bob.link.call("profile", visible=True)
            await seen_by_ada.sees(ada, bob)
            reply = await seen_by_ada.link.call("peers")
            assert {item["name"] for item in reply["ok"]["items"] if item["online"]} == {"owner", "bob"}
            assert (await shown(seen_by_ada.link, "bob"))[:3] == (True, "x", "busy")


async def test_what_no_signal_told_of_is_found_by_the_sweep(tmp_path: Path) -> None:
    """A broker that comes, dies, or whose signals are lost: its leases tell."""
    async with brokers(tmp_path, count=1, limits=Limits(sweep_s=0.1)) as ((one,), url):
        ada = await create_mesh(one)
        bob = await join_mesh(ada, "bob")
        async with watching(ada) as watcher:
            lease = f"""INSERT INTO mesh.presence VALUES ('c1', '{bob.member_id}', '{bob.mesh_id}',
                        'another-broker', now(), now() + interval '1 day', 'x')"""
            await sql(url, lease, "SELECT 1")
            await watcher.sees(ada, bob)
            await sql(url, f"UPDATE mesh.member SET visible = false WHERE id = '{bob.member_id}'", "SELECT 1")
            await watcher.sees(ada)
            await sql(url, f"UPDATE mesh.member SET visible = true WHERE id = '{bob.member_id}'", "SELECT 1")
            await watcher.sees(ada, bob)
            await sql(
                url, "UPDATE mesh.presence SET lease_until = now() WHERE connection_id = 'c1'", "SELECT 1"
            )
            await watcher.sees(ada)
