"""Meshes, members and invites: a join takes one use atomically (docs/spec/lifecycle.md, Joining)."""

from __future__ import annotations

import asyncio

import pytest

from claudemesh.broker.store.types import AuditEvent, Joined, JoinRefused, Mesh
from tests.support.stores import DAY, ENGINES, NOW, member, new_mesh, world
from tests.support.values import replace

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))


async def test_a_mesh_begins_with_its_owner_and_the_topic_all(engine: str) -> None:
    """All in one transaction; a slug that is taken changes nothing."""
    async with world(engine) as w:
        assert [one.name for one in await w.store.members.all(w.mesh.id)] == ["alice"]
        [topic] = await w.store.topics.page(w.mesh.id, w.owner.id)
        assert (topic.topic, topic.mode, topic.subscribed, topic.subscribers) == ("all", "topic", True, 1)
        twin = Mesh(id="01899e2d-0000-7000-8000-00000000aaaa", slug="demo", created_at=NOW)
        assert not await w.store.meshes.create(twin, member(twin.id, "mallory", role="owner"))
        assert [mesh.id for mesh in await w.store.meshes.all()] == [w.mesh.id]
        assert await w.store.meshes.get(w.mesh.id) == w.mesh


async def test_fifty_that_race_for_one_use_have_one_winner(engine: str) -> None:
    """The use is taken atomically with the member row."""
    async with world(engine) as w:
        invite = w.invite()
        newcomers = [member(w.mesh.id, f"m{number}") for number in range(50)]
        outcomes = await asyncio.gather(*(w.store.members.join(invite, one, NOW) for one in newcomers))
        assert sum(isinstance(outcome, Joined) for outcome in outcomes) == 1
        assert outcomes.count(JoinRefused("invite_exhausted")) == 49
        assert len(await w.store.members.all(w.mesh.id)) == 2
        [row] = await w.store.members.invites(w.mesh.id)
        assert row.used_count == 1


async def test_joining_again_with_the_same_key_and_name_takes_no_use(engine: str) -> None:
    """A lost answer is asked for again."""
    async with world(engine) as w:
        invite, bob = w.invite(), member(w.mesh.id, "bob")
        assert await w.store.members.join(invite, bob, NOW) == Joined(bob, created=True)
        again = await w.store.members.join(
            invite, member(w.mesh.id, "bob", ed25519_pubkey=bob.ed25519_pubkey), NOW
        )
        assert again == Joined(bob, created=False)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"expires_at": NOW}, "invite_expired"),
        ({"created_by": "0" * 64}, "not_authorized"),
        ({"max_uses": 0}, "invite_exhausted"),
    ],
)
async def test_a_bad_invite_writes_no_member(engine: str, changes: dict[str, object], error: str) -> None:
    """Expired, exhausted, or by a member that may not invite."""
    async with world(engine) as w:
        outcome = await w.store.members.join(w.invite(**changes), member(w.mesh.id, "bob"), NOW)
        assert outcome == JoinRefused(error)
        assert len(await w.store.members.all(w.mesh.id)) == 1


async def test_a_revoked_invite_stays_revoked(engine: str) -> None:
    """Also when its signed content is registered again."""
    async with world(engine) as w:
        invite = w.invite(max_uses=5)
        assert await w.store.members.register_invite(invite)
        await w.store.members.revoke_invite(w.mesh.id, invite.id, NOW)
        assert not await w.store.members.register_invite(invite)
        assert await w.store.members.join(invite, member(w.mesh.id, "bob"), NOW) == JoinRefused(
            "invite_revoked"
        )


async def test_an_invite_that_nobody_registered_is_revoked_too(engine: str) -> None:
    """A link that was made while the broker was away comes with its first join."""
    async with world(engine) as w:
        invite = w.invite(max_uses=5)
        await w.store.members.revoke_invite(w.mesh.id, invite.id, NOW)
        await w.store.members.revoke_invite(w.mesh.id, invite.id, NOW + 1)
        assert await w.store.members.join(invite, member(w.mesh.id, "bob"), NOW) == JoinRefused(
            "invite_revoked"
        )
        assert not await w.store.members.register_invite(invite)
        [noted] = await w.store.members.invites(w.mesh.id)
        assert (noted.id, noted.created_by, noted.max_uses, noted.revoked_at) == (invite.id, "", 0, NOW)


async def test_an_invite_of_another_mesh_with_the_same_id_changes_nothing(engine: str) -> None:
    """Whichever came first: each has its own uses, its own revocation and its own end."""
    async with world(engine) as w:
        other = replace(new_mesh(), slug="other")
        owner = member(other.id, "ada", role="owner")
        assert await w.store.meshes.create(other, owner)
        theirs = replace(w.invite(), mesh_id=other.id, created_by=owner.ed25519_pubkey)
        ours = w.invite(id=theirs.id)
        assert await w.store.members.register_invite(theirs)
        assert isinstance(await w.store.members.join(theirs, member(other.id, "carol"), NOW), Joined)
        assert isinstance(await w.store.members.join(ours, member(w.mesh.id, "bob"), NOW), Joined)
        again = replace(theirs, id=w.invite().id)
        await w.store.members.revoke_invite(other.id, again.id, NOW)
        ours = w.invite(id=again.id)
        assert isinstance(await w.store.members.join(ours, member(w.mesh.id, "dora"), NOW), Joined)
        assert await w.store.members.join(again, member(other.id, "eve"), NOW) == JoinRefused(
            "invite_revoked"
        )
        late = w.invite(expires_at=NOW - 1)
        assert await w.store.members.register_invite(late)
        assert await w.store.members.register_invite(replace(theirs, id=late.id, expires_at=late.expires_at))
        assert await w.store.members.forget_invites(w.mesh.id, late.created_by, NOW, 0) == 1
        assert late.id in {row.id for row in await w.store.members.invites(other.id)}


async def test_only_owners_and_admins_invite_and_only_owners_invite_owners(engine: str) -> None:
    """The inviter's role and status decide at the moment of joining."""
    async with world(engine) as w:
        admin = member(w.mesh.id, "admin", role="admin")
        assert isinstance(await w.store.members.join(w.invite(role="admin"), admin, NOW), Joined)
        bob = await w.join("bob")
        newcomer = member(w.mesh.id, "new")
        by_bob = w.invite(created_by=bob.ed25519_pubkey)
        assert await w.store.members.join(by_bob, newcomer, NOW) == JoinRefused("not_authorized")
        too_high = w.invite(created_by=admin.ed25519_pubkey, role="owner")
        assert await w.store.members.join(too_high, newcomer, NOW) == JoinRefused("not_authorized")
        by_admin = w.invite(created_by=admin.ed25519_pubkey, expires_at=NOW + DAY)
        assert isinstance(await w.store.members.join(by_admin, newcomer, NOW), Joined)
        await w.store.members.set_status(w.mesh.id, admin.id, "revoked")
        late = w.invite(created_by=admin.ed25519_pubkey)
        assert await w.store.members.join(late, member(w.mesh.id, "late"), NOW) == JoinRefused(
            "not_authorized"
        )


async def test_names_are_unique_without_regard_to_case_and_keys_exactly(engine: str) -> None:
    """A name is free when its member has left; a key never is."""
    async with world(engine) as w:
        bob = await w.join("Bob")
        assert await w.store.members.join(w.invite(), member(w.mesh.id, "bOB"), NOW) == JoinRefused(
            "name_taken"
        )
        await w.store.members.set_status(w.mesh.id, bob.id, "left")
        assert isinstance(await w.store.members.join(w.invite(), member(w.mesh.id, "bob"), NOW), Joined)
        twin = member(w.mesh.id, "robert", ed25519_pubkey=bob.ed25519_pubkey)
        assert await w.store.members.join(w.invite(), twin, NOW) == JoinRefused("key_taken")


async def test_an_x25519_key_is_one_members(engine: str) -> None:
    """Also when several join with it at once, each by an invite of its own, and after its holder has left."""
    async with world(engine) as w:
        first = member(w.mesh.id, "m0")
        box = first.x25519_pubkey
        twins = [first, *(member(w.mesh.id, f"m{number}", x25519_pubkey=box) for number in range(1, 6))]
        outcomes = await asyncio.gather(*(w.store.members.join(w.invite(), one, NOW) for one in twins))
        [joined] = [outcome.member for outcome in outcomes if isinstance(outcome, Joined)]
        assert outcomes.count(JoinRefused("key_taken")) == 5
        await w.store.members.set_status(w.mesh.id, joined.id, "left")
        late = member(w.mesh.id, "late", x25519_pubkey=box)
        assert await w.store.members.join(w.invite(), late, NOW) == JoinRefused("key_taken")
        # Another mesh has members of its own.
        other = Mesh(id="01899e2d-0000-7000-8000-00000000aaaa", slug="other", created_at=NOW)
        assert await w.store.meshes.create(other, member(other.id, "o", role="owner", x25519_pubkey=box))


async def test_a_profile_changes_what_is_given(engine: str) -> None:
    """The rest stays."""
    async with world(engine) as w:
        set_profile = w.store.members.set_profile
        await set_profile(w.mesh.id, w.owner.id, summary="builds", status="busy", visible=None)
        await set_profile(w.mesh.id, w.owner.id, sessions="[]")
        await set_profile(w.mesh.id, w.owner.id, visible=False)
        found = await w.store.members.by_key(w.mesh.id, w.owner.ed25519_pubkey)
        assert found is not None
        assert (found.summary, found.presence_status, found.visible) == ("builds", "busy", False)
        assert found.sessions == "[]"


async def test_subscribing_is_idempotent_and_needs_a_topic(engine: str) -> None:
    """Create and subscribe once or twice: the same."""
    async with world(engine) as w:
        store, mesh_id, owner_id = w.store, w.mesh.id, w.owner.id
        assert not await store.topics.subscribe(mesh_id, "news", owner_id, NOW)
        assert await store.topics.create(mesh_id, "news", "topic", owner_id, NOW)
        assert not await store.topics.create(mesh_id, "news", "queue", owner_id, NOW)
        assert await store.topics.subscribe(mesh_id, "news", owner_id, NOW)
        assert await store.topics.subscribe(mesh_id, "news", owner_id, NOW)
        assert await store.topics.unsubscribe(mesh_id, "news", owner_id)
        assert not await store.topics.unsubscribe(mesh_id, "news", owner_id)
        rows = {row.topic: row for row in await store.topics.page(mesh_id, owner_id)}
        assert (rows["news"].mode, rows["news"].subscribed, rows["news"].subscribers) == ("topic", False, 0)


async def test_audit_events_are_kept_in_order(engine: str) -> None:
    """Append-only, newest first when listed."""
    async with world(engine) as w:
        events = [AuditEvent(w.mesh.id, f"kind_{n}", w.owner.id, NOW + n, {"n": n}) for n in range(3)]
        await w.store.audit.write(events)
        assert list(await w.store.audit.newest(w.mesh.id, 2)) == [events[2], events[1]]


async def test_the_epoch_is_the_same_until_the_data_is_another(engine: str) -> None:
    """Two databases never share one."""
    async with world(engine) as one, world(engine) as other:
        assert await one.store.store_epoch() == await one.store.store_epoch()
        assert await one.store.store_epoch() != await other.store.store_epoch()


async def test_policies_of_a_mesh_are_replaced_together(engine: str) -> None:
    """Of this mesh alone; one that is not there is told so."""
    async with world(engine) as w:
        changed = replace(w.mesh, rate_limit_per_minute=7, clone_concurrency_policy="prefer_oldest")
        assert await w.store.meshes.update(changed)
        assert await w.store.meshes.get(w.mesh.id) == changed
        nowhere = replace(changed, id="01899e2d-0000-7000-8000-00000000aaaa")
        assert not await w.store.meshes.update(nowhere)
