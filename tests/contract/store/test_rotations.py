"""Rotations of members' keys: member row, keys, statements and version of the list change together."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from claudemesh.broker.store.decisions import EARLIER_KEYS
from claudemesh.broker.store.types import (
    Joined,
    JoinRefused,
    KeyStep,
    Member,
    NewKeys,
    Rotated,
    RotationRefused,
)
from tests.support.stores import ENGINES, NOW, World, member, world
from tests.support.values import replace

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))


def rotation(*members: Member) -> NewKeys:
    """Return the keys of the last member, and the steps that lead to them from the first one's."""
    steps = tuple(
        KeyStep(old.ed25519_pubkey, new.ed25519_pubkey, new.x25519_pubkey, statement(old))
        for old, new in itertools.pairwise(members)
    )
    return NewKeys(members[-1].x25519_signature, members[-1].key_id, steps)


def statement(old: Member) -> str:
    """Return text in the place of the statement by which a key was left."""
    return f'{{"old_pubkey":"{old.ed25519_pubkey}"}}'


def again(one: Member) -> Member:
    """Return the same member with other keys."""
    other = member(one.mesh_id, one.name)
    keys = ("ed25519_pubkey", "x25519_pubkey", "x25519_signature", "key_id")
    return replace(one, **{name: getattr(other, name) for name in keys})


async def rotated(w: World, *members: Member) -> Member:
    """Rotate, and return the member."""
    outcome = await w.store.rotations.rotate(w.mesh.id, rotation(*members), NOW)
    assert isinstance(outcome, Rotated), outcome
    return outcome.member


async def test_a_rotation_replaces_the_keys_and_keeps_the_member(engine: str) -> None:
    """Id, name and role stay. The older key leads to the member, and its statement is listed."""
    async with world(engine) as w:
        bob = await w.join("bob")
        new = again(bob)
        found = await rotated(w, bob, new)
        assert found == replace(new, earlier_pubkeys=(bob.ed25519_pubkey,), rotations=(statement(bob),))
        assert await w.store.members.by_key(w.mesh.id, bob.ed25519_pubkey) is None
        assert await w.store.members.by_any_key(w.mesh.id, bob.ed25519_pubkey) == found
        assert await w.store.members.by_key(w.mesh.id, new.ed25519_pubkey) == found
        assert await w.store.members.find(w.mesh.id, "bob") == found


async def test_a_repeated_rotation_changes_nothing(engine: str) -> None:
    """The answer of the first one may have been lost."""
    async with world(engine) as w:
        bob = await w.join("bob")
        new = again(bob)
        found = await rotated(w, bob, new)
        version = await w.store.directory.version(w.mesh.id)
        outcome = await w.store.rotations.rotate(w.mesh.id, rotation(bob, new), NOW + 1)
        assert outcome == Rotated(found, changed=False)
        assert await w.store.directory.version(w.mesh.id) == version


async def test_readers_of_the_list_get_the_change(engine: str) -> None:
    """The rotation makes a new version, with the member in it once."""
    async with world(engine) as w:
        bob = await w.join("bob")
        before = await w.store.directory.version(w.mesh.id)
        found = await rotated(w, bob, again(bob))
        page = await w.store.directory.page(w.mesh.id, before, limit=10)
        assert page.members == (found,)
        assert not page.is_whole


async def test_a_message_to_the_older_key_reaches_the_member(engine: str) -> None:
    """Senders that were away seal to the key that they know."""
    async with world(engine) as w:
        bob = await w.join("bob")
        await rotated(w, bob, again(bob))
        send = w.dm(w.owner, bob)
        await w.store.messages.accept([send], NOW)
        assert await w.owed(bob) == [send.broker_message_id]


async def test_of_rotations_that_race_one_wins(engine: str) -> None:
    """The others are refused: their older key is rotated out."""
    async with world(engine) as w:
        bob = await w.join("bob")
        rivals = [again(bob) for _ in range(8)]
        outcomes = await asyncio.gather(
            *(w.store.rotations.rotate(w.mesh.id, rotation(bob, new), NOW) for new in rivals)
        )
        assert sum(isinstance(outcome, Rotated) for outcome in outcomes) == 1
        assert outcomes.count(RotationRefused("key_rotated_out")) == len(rivals) - 1


@pytest.mark.parametrize("status", ["revoked", "left"])
async def test_only_an_active_member_rotates(engine: str, status: str) -> None:
    """A revoked member cannot get away from its revocation; a stranger is none."""
    async with world(engine) as w:
        bob = await w.join("bob")
        stranger = member(w.mesh.id, "eve")
        refused = RotationRefused("not_a_member")
        assert await w.store.rotations.rotate(w.mesh.id, rotation(stranger, again(bob)), NOW) == refused
        await w.store.members.set_status(w.mesh.id, bob.id, status)  # type: ignore[arg-type]
        assert await w.store.rotations.rotate(w.mesh.id, rotation(bob, again(bob)), NOW) == refused
        kept = await w.store.members.by_key(w.mesh.id, bob.ed25519_pubkey)
        assert kept is not None
        assert kept.earlier_pubkeys == ()


@pytest.mark.parametrize("field", ["ed25519_pubkey", "x25519_pubkey"])
async def test_a_key_of_another_member_is_taken(engine: str, field: str) -> None:
    """Present or rotated out, it stays that member's."""
    async with world(engine) as w:
        bob, cleo = await w.join("bob"), await w.join("cleo")
        await rotated(w, cleo, again(cleo))
        new = replace(again(bob), **{field: getattr(cleo, field)})
        outcome = await w.store.rotations.rotate(w.mesh.id, rotation(bob, new), NOW)
        assert outcome == RotationRefused("key_taken")
        assert await w.store.members.by_key(w.mesh.id, bob.ed25519_pubkey) == bob


async def test_a_member_does_not_go_back_to_an_older_key(engine: str) -> None:
    async with world(engine) as w:
        bob = await w.join("bob")
        new = await rotated(w, bob, again(bob))
        outcome = await w.store.rotations.rotate(w.mesh.id, rotation(new, bob), NOW)
        assert outcome == RotationRefused("key_taken")


async def test_rotations_that_a_restore_has_lost_are_made_again_in_one_step(engine: str) -> None:
    """The chain is followed from the key that the broker knows; steps before it are passed over."""
    async with world(engine) as w:
        first = await w.join("bob")
        second, third, fourth = again(first), again(first), again(first)
        await rotated(w, first, second)
        found = await rotated(w, first, second, third, fourth)
        assert found.ed25519_pubkey == fourth.ed25519_pubkey
        older = (first, second, third)
        assert found.earlier_pubkeys == tuple(one.ed25519_pubkey for one in older)
        assert found.rotations == tuple(map(statement, older))


async def test_older_keys_are_listed_in_the_order_of_the_rotations_whatever_the_clock_shows(
    engine: str,
) -> None:
    async with world(engine) as w:
        chain = [await w.join("bob")]
        for number in range(4):
            chain.append(again(chain[0]))
            outcome = await w.store.rotations.rotate(w.mesh.id, rotation(*chain[-2:]), NOW - number)
            assert isinstance(outcome, Rotated)
        found = await w.store.members.by_key(w.mesh.id, chain[-1].ed25519_pubkey)
        assert found is not None
        assert found.earlier_pubkeys == tuple(one.ed25519_pubkey for one in chain[:-1])


async def test_the_newest_older_keys_are_kept(engine: str) -> None:
    """A member that rotates without end has a bounded number of rows."""
    async with world(engine) as w:
        first = await w.join("bob")
        chain = [first, *(again(first) for _ in range(EARLIER_KEYS))]
        await rotated(w, *chain)
        found = await rotated(w, chain[-1], again(first))
        assert found.earlier_pubkeys == tuple(one.ed25519_pubkey for one in chain[1:])
        assert await w.store.members.by_any_key(w.mesh.id, first.ed25519_pubkey) is None


async def test_an_invite_that_was_registered_outlives_the_key_that_has_signed_it(engine: str) -> None:
    """One that comes with its first join does not: a thief of the older key makes no new ones."""
    async with world(engine) as w:
        known, unknown = w.invite(), w.invite()
        assert await w.store.members.register_invite(known)
        await rotated(w, w.owner, again(w.owner))
        joined = await w.store.members.join(known, member(w.mesh.id, "bob"), NOW)
        assert isinstance(joined, Joined)
        refused = await w.store.members.join(unknown, member(w.mesh.id, "eve"), NOW)
        assert refused == JoinRefused("not_authorized")
