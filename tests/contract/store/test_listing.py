"""The member list by versions and pages: what costs nothing, what is a change, and what is never missed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from claudemesh.broker.store.types import Joined, Member, Page, Seen, Version, parse_version
from tests.support.stores import DAY, ENGINES, NOW, World, member, new_ulid, world

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))


async def newest(w: World) -> Version:
    """The newest version of the world's mesh."""
    found = await w.store.directory.version(w.mesh.id)
    assert found is not None
    return found


async def names_since(w: World, since: Version | None) -> list[str]:
    """Return the names in the changes since a version."""
    page = await w.store.directory.page(w.mesh.id, since, limit=1000)
    assert page.next is None
    assert page.is_whole == (since is None)
    return [one.name for one in page.members]


async def whole(w: World, limit: int = 1000) -> list[Member]:
    """The whole list, page by page."""
    found: list[Member] = []
    after: int | None = 0
    while after is not None:
        page: Page = await w.store.directory.page(w.mesh.id, None, after=after, limit=limit)
        found += page.members
        after = page.next
    return found


async def raw(w: World, engine: str, statement: str) -> None:
    """Run a statement past the store."""
    store: Any = w.store
    if engine == "sqlite":
        await store.database.transaction(lambda connection: connection.execute(statement))
    else:
        await store.pools.execute(statement.replace("UPDATE ", "UPDATE mesh."))


async def test_every_change_that_others_see_makes_a_version(engine: str) -> None:
    """For any statement: the database makes the version, in the same transaction."""
    async with world(engine) as w:
        bob = await w.join("bob")
        eve = await w.join("eve", ephemeral=True)
        put_back = member(w.mesh.id, "ann")
        absent = [one for one in await w.store.retention.absent_ephemerals(NOW) if one.member_id == eve.id]
        changes = {
            "bob": [
                w.store.members.set_profile(w.mesh.id, bob.id, summary="x", status=None, visible=None),
                w.store.members.set_profile(w.mesh.id, bob.id, summary=None, status="busy", visible=None),
                w.store.members.set_profile(w.mesh.id, bob.id, visible=False),
                w.store.members.set_profile(w.mesh.id, bob.id, sessions='[{"name":"api"}]'),
                w.store.members.set_status(w.mesh.id, bob.id, "revoked"),
            ],
            "ann": [w.store.restoring.put_back_member(put_back, None)],
            "eve": [w.store.retention.reap_ephemeral(absent, DAY)],
            "new": [w.store.members.join(w.invite(), member(w.mesh.id, "new"), NOW)],
        }
        for name, calls in changes.items():
            for call in calls:
                before = await newest(w)
                await call  # type: ignore[misc]
                after = await newest(w)
                assert (after.number, after.token != before.token) == (before.number + 1, True)
                assert await names_since(w, before) == [name]
                assert await names_since(w, after) == []


@pytest.mark.parametrize(
    "change",
    [
        "name = 'rob'",
        "role = 'admin'",
        "key_id = 'k_other'",
        "ed25519_pubkey = x25519_pubkey",
        "x25519_pubkey = ed25519_pubkey",
        "x25519_signature = ed25519_pubkey",
    ],
)
async def test_every_column_that_others_see_is_watched(engine: str, change: str) -> None:
    """Also by statements that do not exist yet."""
    async with world(engine) as w:
        await w.join("bob")
        before = await newest(w)
        await raw(w, engine, f"UPDATE member SET {change} WHERE name = 'bob'")
        assert len(await names_since(w, before)) == 1
        before = await newest(w)
        await raw(w, engine, "UPDATE member_key SET state = 'rotated_out' WHERE key_id <> ''")
        assert len(await names_since(w, before)) == 2


async def test_what_others_do_not_see_makes_no_version(engine: str) -> None:
    """Last seen, a profile set to what it was, a join that failed, a join that was asked for twice."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await w.store.members.set_profile(w.mesh.id, bob.id, summary="x", status=None, visible=True)
        before = await newest(w)
        await w.store.presence.members_seen([Seen(w.mesh.id, bob.id, NOW, bytes(32))])
        await w.store.members.set_profile(w.mesh.id, bob.id, summary="x", status=None, visible=True)
        await w.store.members.set_status(w.mesh.id, bob.id, "active")
        await w.store.members.join(w.invite(max_uses=0), member(w.mesh.id, "late"), NOW)
        again = await w.store.members.join(
            w.invite(), member(w.mesh.id, "bob", ed25519_pubkey=bob.ed25519_pubkey), NOW
        )
        assert isinstance(again, Joined)
        assert await newest(w) == before


async def test_those_who_left_cost_a_whole_list_nothing(engine: str) -> None:
    """Revoked members are in it: they must not come back unseen."""
    async with world(engine) as w:
        bob, eve, cleo = await w.join("bob"), await w.join("eve", ephemeral=True), await w.join("cleo")
        before = await newest(w)
        for one in (bob, eve):
            await w.store.members.set_status(w.mesh.id, one.id, "left")
        await w.store.members.set_status(w.mesh.id, cleo.id, "revoked")
        assert [(one.name, one.status) for one in await whole(w)] == [
            ("alice", "active"),
            ("cleo", "revoked"),
        ]
        page = await w.store.directory.page(w.mesh.id, before, limit=10)
        assert [(one.name, one.status) for one in page.members] == [
            ("bob", "left"),
            ("eve", "left"),
            ("cleo", "revoked"),
        ]


async def test_who_joined_and_left_meanwhile_is_no_change(engine: str) -> None:
    """A thousand jobs that came and went cost who was away nothing."""
    async with world(engine) as w:
        before = await newest(w)
        for number in range(5):
            one = await w.join(f"job{number}", ephemeral=True)
            await w.store.members.set_status(w.mesh.id, one.id, "left")
        await w.join("bob")
        assert await names_since(w, before) == ["bob"]


async def test_a_page_holds_no_more_than_was_asked_for_and_misses_nobody(engine: str) -> None:
    """Members that change or join while the list is read page by page are included."""
    async with world(engine) as w:
        members = [await w.join(f"m{number}") for number in range(7)]
        listing = w.store.directory
        first = await listing.page(w.mesh.id, None, limit=3)
        assert ([one.name for one in first.members], first.version) == (["alice", "m0", "m1"], None)
        await w.store.members.set_profile(w.mesh.id, members[0].id, summary="new", status=None, visible=None)
        seen = {one.name: one for one in first.members}
        after = first.next
        while after is not None:
            page = await listing.page(w.mesh.id, None, after=after, limit=3)
            assert len(page.members) <= 3
            seen |= {one.name: one for one in page.members}
            after = page.next
        assert seen["m0"].summary == "new"
        assert set(seen) == {"alice", *(one.name for one in members)}
        assert page.version == await newest(w)


async def test_changes_come_in_pages_too_and_each_page_ends_at_a_version(engine: str) -> None:
    """A reader that is interrupted goes on where it was."""
    async with world(engine) as w:
        start = await newest(w)
        for number in range(5):
            await w.join(f"m{number}")
        version, seen = start, []
        while True:
            page = await w.store.directory.page(w.mesh.id, version, limit=2)
            assert not page.is_whole
            seen += [one.name for one in page.members]
            assert page.version is not None
            version = page.version
            if page.next is None:
                break
        assert seen == [f"m{number}" for number in range(5)]
        assert version == await newest(w)


async def test_a_version_of_another_copy_of_the_database_is_not_known(engine: str) -> None:
    """Numbers repeat after a restore, tokens do not: the whole list follows."""
    async with world(engine) as w:
        await w.join("bob")
        now = await newest(w)
        for since in (
            Version(now.number, "0" * 32),
            Version(now.number + 5, now.token),
            Version(0, now.token),
        ):
            page = await w.store.directory.page(w.mesh.id, since, limit=10)
            assert page.is_whole
            assert len(page.members) == 2
            assert page.version == now
        assert parse_version(str(now)) == now
        assert [parse_version(text) for text in ("", "7", f"x-{now.token}", f"{now}0", "-" + now.token)] == [
            None
        ] * 5


async def test_a_version_that_was_too_long_ago_is_forgotten(engine: str) -> None:
    """Tokens are kept for the newest 100,000 versions, and no longer."""
    async with world(engine) as w:
        old = await newest(w)
        await raw(w, engine, "UPDATE directory SET version = 99999")
        await raw(w, engine, "UPDATE directory_token SET version = 99999 WHERE version = 99999")
        await w.join("bob")
        assert not (await w.store.directory.page(w.mesh.id, old, limit=10)).is_whole
        await w.join("cleo")
        assert (await w.store.directory.page(w.mesh.id, old, limit=10)).is_whole


async def test_changes_at_once_become_visible_in_the_order_of_their_versions(engine: str) -> None:
    """A reader that has read up to a version never has to look below it again."""
    async with world(engine) as w:
        invite = w.invite(max_uses=100)
        seen: dict[str, int] = {}
        version = await newest(w)
        joining = asyncio.gather(
            *(w.store.members.join(invite, member(w.mesh.id, f"m{number}"), NOW) for number in range(40)),
            *(
                w.store.members.set_profile(
                    w.mesh.id, w.owner.id, summary=f"s{number}", status=None, visible=None
                )
                for number in range(10)
            ),
        )
        while not joining.done() or version != await newest(w):
            page = await w.store.directory.page(w.mesh.id, version, limit=5)
            seen |= {one.name: one.changed_version for one in page.members}
            assert page.version is not None
            version = page.version
            await asyncio.sleep(0)
        await joining
        listed = {one.name: one.changed_version for one in await whole(w)}
        assert seen == listed
        assert version.number == 51
        assert len(set(listed.values())) == len(listed)


async def test_single_members_are_found_without_the_list(engine: str) -> None:
    """By name without regard to case, by current key, by id."""
    async with world(engine) as w:
        bob = await w.join("Bob")
        other = await w.join("cleo", role="admin")
        for wanted in ("bob", "BOB", bob.ed25519_pubkey, bob.id):
            assert await w.store.members.find(w.mesh.id, wanted) == bob
        for wanted in ("b", bob.x25519_pubkey, new_ulid(), "01899e2d-0000-7000-8000-00000000aaaa"):
            assert await w.store.members.find(w.mesh.id, wanted) is None
        assert await w.store.members.by_any_key(w.mesh.id, bob.ed25519_pubkey) == bob
        await raw(w, engine, "UPDATE member SET role = 'admin' WHERE name = 'cleo'")
        assert sorted(await w.store.members.privileged(w.mesh.id)) == sorted([w.owner.id, other.id])
        await w.store.members.set_status(w.mesh.id, other.id, "left")
        assert list(await w.store.members.privileged(w.mesh.id)) == [w.owner.id]


async def test_members_are_paged_by_name_for_operators(engine: str) -> None:
    """All members that ever joined, without regard to case."""
    async with world(engine) as w:
        for name in ("Bob", "cleo", "Dan", "eve"):
            await w.join(name)
        bob = await w.store.members.find(w.mesh.id, "bob")
        assert bob is not None
        await w.store.members.set_status(w.mesh.id, bob.id, "left")
        assert [one.name for one in await w.store.members.page(w.mesh.id, "", 3)] == ["alice", "Bob", "cleo"]
        assert [one.name for one in await w.store.members.page(w.mesh.id, "CLEO", 3)] == ["Dan", "eve"]


async def test_versions_of_meshes_are_asked_for_together(engine: str) -> None:
    """One that is not there has none."""
    async with world(engine) as w:
        nowhere = "01899e2d-0000-7000-8000-00000000aaaa"
        assert await w.store.directory.versions([w.mesh.id, nowhere]) == {w.mesh.id: await newest(w)}
        assert await w.store.directory.version(nowhere) is None


async def test_a_revoked_member_does_not_count_as_a_subscriber(engine: str) -> None:
    """It is given no message either."""
    async with world(engine) as w:
        bob = await w.join("bob")
        [topic] = await w.store.topics.page(w.mesh.id, w.owner.id)
        assert topic.subscribers == 2
        await w.store.members.set_status(w.mesh.id, bob.id, "revoked")
        [topic] = await w.store.topics.page(w.mesh.id, w.owner.id)
        assert topic.subscribers == 1


async def test_topics_come_in_pages_and_are_counted_on_demand(engine: str) -> None:
    """A mesh may have as many as it likes, and a topic as many subscribers."""
    async with world(engine) as w:
        for name in ("b", "a", "c"):
            await w.store.topics.create(w.mesh.id, name, "topic", w.owner.id, NOW)
        await w.store.topics.create(w.mesh.id, "q", "queue", w.owner.id, NOW)
        first = await w.store.topics.page(w.mesh.id, w.owner.id, limit=3)
        assert [(row.topic, row.subscribers) for row in first] == [("a", 0), ("all", 1), ("b", 0)]
        rest = await w.store.topics.page(w.mesh.id, w.owner.id, after="b", limit=3, counts=False)
        assert [(row.topic, row.subscribers) for row in rest] == [("c", None), ("q", None)]
        assert await w.store.topics.mode(w.mesh.id, "q") == "queue"
        assert await w.store.topics.mode(w.mesh.id, "nowhere") is None
