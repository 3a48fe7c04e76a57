"""Acts of members about members: names, leaving, revoking, roles (docs/spec/broker.md, Acts of members)."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from claudemesh.broker.store.acts import Acted
from claudemesh.broker.store.protocol import Store
from claudemesh.broker.store.types import Joined, JoinRefused, Member
from claudemesh.protocol.authority import Refusal
from claudemesh.protocol.keys import Identity
from claudemesh.protocol.statements import Statement, sign_statement
from tests.support.stores import ENGINES, NOW, World, member, world
from tests.support.values import replace
from tests.support.wspeer import make_identity

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))


async def signing(w: World, name: str, role: str) -> tuple[Member, Identity]:
    """Let a member with a known identity join."""
    identity = make_identity()
    joined = member(w.mesh.id, name, role=role, ed25519_pubkey=identity.ed25519_pubkey)
    outcome = await w.store.members.join(w.invite(role=role), joined, NOW)
    assert isinstance(outcome, Joined)
    return outcome.member, identity


def revocation(by: Identity, subject: Member, at_ms: int = NOW) -> Statement:
    return sign_statement(
        by,
        "revocation",
        mesh_id=subject.mesh_id,
        subject=subject.id,
        at_ms=at_ms,
        pubkey=subject.ed25519_pubkey,
    )


def giving(by: Identity, subject: Member, role: str, at_ms: int = NOW) -> Statement:
    return sign_statement(by, "role", mesh_id=subject.mesh_id, subject=subject.id, at_ms=at_ms, role=role)


def code(outcome: Acted | Refusal) -> str:
    return outcome.code if isinstance(outcome, Refusal) else "done"


async def listed(store: Store, mesh_id: str) -> dict[str, Member]:
    page = await store.directory.page(mesh_id, None, limit=100)
    return {one.name: one for one in page.members}


async def test_a_rename_releases_the_old_name_and_takes_the_new_one(engine: str) -> None:
    """Names are unique among active members, without regard to case."""
    async with world(engine) as w:
        bob, cleo = await w.join("bob"), await w.join("cleo")
        assert code(await w.store.acts.rename(w.mesh.id, bob.id, "CLEO")) == "name_taken"
        renamed = await w.store.acts.rename(w.mesh.id, bob.id, "robert")
        assert isinstance(renamed, Acted)
        assert (renamed.before.name, renamed.member.name, renamed.has_changed) == ("bob", "robert", True)
        again = await w.store.acts.rename(w.mesh.id, bob.id, "robert")
        assert isinstance(again, Acted)
        assert not again.has_changed
        assert code(await w.store.acts.rename(w.mesh.id, cleo.id, "Bob")) == "done"
        assert {one.name for one in await w.store.members.all(w.mesh.id)} == {"alice", "robert", "Bob"}


async def test_a_member_may_change_the_case_of_its_name(engine: str) -> None:
    """Its own name is not taken by another member."""
    async with world(engine) as w:
        bob = await w.join("bob")
        assert code(await w.store.acts.rename(w.mesh.id, bob.id, "BOB")) == "done"


async def test_of_two_that_take_one_name_at_once_one_gets_it(engine: str) -> None:
    """Renames and joins alike."""
    async with world(engine) as w:
        members = [await w.join(f"m{number}") for number in range(6)]
        outcomes = await asyncio.gather(*(w.store.acts.rename(w.mesh.id, m.id, "prize") for m in members))
        assert sorted(map(code, outcomes)) == ["done", *["name_taken"] * 5]


async def test_leaving_and_being_revoked_release_the_name(engine: str) -> None:
    """The row stays, for its messages; the name is free for another member."""
    async with world(engine) as w:
        bob = await w.join("bob")
        assert code(await w.store.acts.leave(w.mesh.id, bob.id, force=False)) == "done"
        assert code(await w.store.acts.leave(w.mesh.id, bob.id, force=False)) == "not_a_member"
        second = await w.join("BOB")
        assert second.id != bob.id
        found = await w.store.members.find(w.mesh.id, "bob")
        assert found is not None
        assert found.id == second.id
        await w.store.members.set_status(w.mesh.id, second.id, "revoked")
        assert (await w.join("Bob")).id not in (bob.id, second.id)
        names = [one.name for one in await w.store.members.page(w.mesh.id, "", 10)]
        assert sorted(names) == ["BOB", "Bob", "alice", "bob"]


async def test_pages_by_name_show_every_member_of_a_name_once(engine: str) -> None:
    """A page may end between two members of one name."""
    async with world(engine) as w:
        for _ in range(5):
            bob = await w.join("bob")
            await w.store.acts.leave(w.mesh.id, bob.id, force=False)
        seen: list[str] = []
        after = ""
        while page := await w.store.members.page(w.mesh.id, after, 2):
            seen += [one.id for one in page]
            after = f"{page[-1].name}/{page[-1].id}"
        assert len(seen) == len(set(seen)) == 6


async def test_the_last_owner_leaves_by_force_alone(engine: str) -> None:
    """Another owner has to be active to count."""
    async with world(engine) as w:
        other, _ = await signing(w, "other", "owner")
        await w.store.members.set_status(w.mesh.id, other.id, "revoked")
        assert code(await w.store.acts.leave(w.mesh.id, w.owner.id, force=False)) == "last_owner"
        assert code(await w.store.acts.leave(w.mesh.id, w.owner.id, force=True)) == "done"


async def test_of_two_owners_that_leave_at_once_one_stays(engine: str) -> None:
    """The second finds that the first has left, on one broker or two."""
    async with world(engine) as w:
        other, _ = await signing(w, "other", "owner")
        leaving = (w.store.acts.leave(w.mesh.id, one, force=False) for one in (w.owner.id, other.id))
        assert sorted(map(code, await asyncio.gather(*leaving))) == ["done", "last_owner"]


async def test_a_revocation_is_carried_by_the_entry_of_its_subject(engine: str) -> None:
    """Peers that were away find it in the list; the list has a new version."""
    async with world(engine) as w:
        admin, key = await signing(w, "admin", "admin")
        bob = await w.join("bob")
        before = await w.store.directory.version(w.mesh.id)
        statement = revocation(key, bob)
        acted = await w.store.acts.revoke(statement, admin.id, force=False)
        assert isinstance(acted, Acted)
        assert (acted.member.status, acted.has_changed) == ("revoked", True)
        [changed] = (await w.store.directory.page(w.mesh.id, before, limit=10)).members
        assert (changed.id, changed.status) == (bob.id, "revoked")
        assert [Statement.parse(orjson.loads(body)) for body in changed.statements] == [statement]
        carried = await w.store.acts.revocation(acted.member)
        assert carried is not None
        assert Statement.parse(orjson.loads(carried)) == statement
        assert await w.store.acts.revocation(admin) is None
        again = await w.store.acts.revoke(revocation(key, bob, NOW + 5), admin.id, force=False)
        assert isinstance(again, Acted)
        assert not again.has_changed


async def test_a_revocation_has_to_be_the_callers_own_and_name_the_subjects_key(engine: str) -> None:
    """A statement of another member, or about another key, writes nothing."""
    async with world(engine) as w:
        admin, key = await signing(w, "admin", "admin")
        _, other_key = await signing(w, "other", "admin")
        bob = await w.join("bob")
        stolen = revocation(other_key, bob)
        assert code(await w.store.acts.revoke(stolen, admin.id, force=False)) == "not_authorized"
        wrong = revocation(key, replace(bob, ed25519_pubkey=make_identity().ed25519_pubkey))
        assert code(await w.store.acts.revoke(wrong, admin.id, force=False)) == "not_found"
        missing = revocation(key, replace(bob, id=w.mesh.id))
        assert code(await w.store.acts.revoke(missing, admin.id, force=False)) == "not_found"
        assert (await listed(w.store, w.mesh.id))["bob"].status == "active"


async def test_a_revoked_member_revokes_no_other_one(engine: str) -> None:
    """Its statement may have been signed before."""
    async with world(engine) as w:
        admin, key = await signing(w, "admin", "admin")
        bob = await w.join("bob")
        await w.store.members.set_status(w.mesh.id, admin.id, "revoked")
        outcome = await w.store.acts.revoke(revocation(key, bob), admin.id, force=False)
        assert code(outcome) == "not_a_member"


async def test_roles_decide_over_revocations(engine: str) -> None:
    """A member has no authority, an admin none over an owner."""
    async with world(engine) as w:
        admin, key = await signing(w, "admin", "admin")
        bob, bobs_key = await signing(w, "bob", "member")
        assert code(await w.store.acts.revoke(revocation(key, w.owner), admin.id, force=True)) == (
            "not_authorized"
        )
        assert code(await w.store.acts.revoke(revocation(bobs_key, admin), bob.id, force=True)) == (
            "not_authorized"
        )


async def test_a_role_is_changed_by_the_latest_statement(engine: str) -> None:
    """A statement that was made before the one that counts is refused."""
    async with world(engine) as w:
        owner, key = await signing(w, "owner2", "owner")
        bob = await w.join("bob")
        give = w.store.acts.give_role
        assert code(await give(giving(key, bob, "admin", NOW + 2), owner.id, force=False)) == "done"
        assert code(await give(giving(key, bob, "member", NOW + 1), owner.id, force=False)) == (
            "statement_outdated"
        )
        assert code(await give(giving(key, bob, "member", NOW + 3), owner.id, force=False)) == "done"
        replayed = giving(key, bob, "admin", NOW + 2)
        assert code(await give(replayed, owner.id, force=False)) == "statement_outdated"
        entry = (await listed(w.store, w.mesh.id))["bob"]
        assert entry.role == "member"
        assert [Statement.parse(orjson.loads(body)).at_ms for body in entry.statements] == [NOW + 3]


async def test_roles_of_members_that_are_gone_are_not_changed(engine: str) -> None:
    """A revoked member gets no role, and the last owner keeps its own."""
    async with world(engine) as w:
        bob = await w.join("bob")
        owner, key = await signing(w, "owner2", "owner")
        await w.store.members.set_status(w.mesh.id, bob.id, "revoked")
        give = w.store.acts.give_role
        assert code(await give(giving(key, bob, "admin"), owner.id, force=False)) == "not_found"
        assert code(await w.store.acts.leave(w.mesh.id, w.owner.id, force=False)) == "done"
        assert code(await give(giving(key, owner, "member"), owner.id, force=False)) == "last_owner"


async def test_a_revoked_member_is_put_back_under_a_name_that_was_taken_since(engine: str) -> None:
    """A revocation that a restore has lost is made again."""
    async with world(engine) as w:
        await w.join("bob")
        lost = member(w.mesh.id, "bob", status="revoked")
        assert isinstance(await w.store.restoring.put_back_member(lost, None), Joined)
        active = member(w.mesh.id, "bob")
        assert await w.store.restoring.put_back_member(active, None) == JoinRefused("name_taken")


async def test_a_replacement_is_carried_on_by_the_next_ones(engine: str) -> None:
    """A host that was away for several replacements finds the one of the member that it has pinned."""
    async with world(engine) as w:
        _, key = await signing(w, "admin", "admin")
        first = await w.join("bob")
        made, last = [], first
        for number in range(3):
            await w.store.acts.leave(w.mesh.id, last.id, force=False)
            statement = sign_statement(
                key,
                "replacement",
                mesh_id=w.mesh.id,
                subject=last.id,
                at_ms=NOW + number,
                name="bob",
                invite_id="01ARZ3NDEKTSV4RRFFQ69G5FAV",
            )
            made.append(statement)
            bodies = (orjson.dumps(statement.to_dict()).decode(),)
            last = await w.join("bob", statements=bodies)
        entry = (await listed(w.store, w.mesh.id))["bob"]
        assert entry.id == last.id
        assert [Statement.parse(orjson.loads(body)) for body in entry.statements] == made[::-1]
