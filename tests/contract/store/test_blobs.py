"""Blobs on both stores: quotas, uploads that resume, recipients, the sweep (docs/spec/broker.md, Blobs)."""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets

import pytest

from claudemesh.broker.store.blobs import (
    IDLE_MS,
    LIFE_MS,
    Blob,
    BlobBounds,
    BlobRefused,
    BlobUsage,
    NewBlob,
    judge_upload,
)
from claudemesh.broker.store.types import Accepted, Member, NewSend
from tests.support.stores import ENGINES, NOW, World, world

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))

WIDE = BlobBounds(mesh_bytes=1 << 40, member_bytes=1 << 40, uploads=1000, blobs=1000)
_DATA = random.Random(7).randbytes(200_000)


def wish(w: World, owner: Member, data: bytes = _DATA, *, lived_ms: int = NOW) -> NewBlob:
    """The wish of a member to upload these bytes."""
    digest = hashlib.sha256(data).digest()
    return NewBlob(secrets.token_hex(16), w.mesh.id, owner.id, len(data), digest, lived_ms)


async def begun(w: World, owner: Member, data: bytes = _DATA, *, lived_ms: int = NOW) -> Blob:
    """An upload that has begun."""
    blob = await w.store.blobs.begin(wish(w, owner, data, lived_ms=lived_ms), WIDE)
    assert isinstance(blob, Blob), blob
    return blob


async def uploaded(w: World, owner: Member, data: bytes = _DATA, *, lived_ms: int = NOW) -> Blob:
    """A blob that is complete."""
    blob = await begun(w, owner, data, lived_ms=lived_ms)
    assert await w.store.blobs.resume(blob) == 0
    assert await written(w, blob, 0, data, lived_ms)
    assert await w.store.blobs.finish(blob, lived_ms)
    return await found(w, blob)


async def written(w: World, blob: Blob, at: int, data: bytes, lived_ms: int) -> bool:
    """Append bytes in two pieces, and sync them."""
    pieces = (data[: len(data) // 2], data[len(data) // 2 :])
    appended = await w.store.blobs.append(blob.id, at, pieces, lived_ms)
    return appended and await w.store.blobs.settle(blob.id, at + len(data), lived_ms)


async def found(w: World, blob: Blob) -> Blob:
    """The blob as its row has it now."""
    row = await w.store.blobs.get(w.mesh.id, blob.id)
    assert row is not None
    return row


async def is_gone(w: World, blob: Blob) -> bool:
    """Whether there is neither row nor bytes."""
    return await w.store.blobs.get(w.mesh.id, blob.id) is None and not await w.store.blobs.read(blob, 0, 1)


async def whole(w: World, blob: Blob) -> bytes:
    """All bytes of a blob, read in pieces."""
    parts = bytearray()
    while piece := await w.store.blobs.read(blob, len(parts), 70_000):
        parts += piece
    return bytes(parts)


async def sent(w: World, send: NewSend) -> str:
    """Accept a send and return its client_message_id."""
    (outcome,) = await w.store.messages.accept([send], NOW)
    assert isinstance(outcome, Accepted), outcome
    return send.key.client_message_id


async def test_a_blob_is_read_as_it_was_written(engine: str) -> None:
    async with world(engine) as w:
        blob = await begun(w, w.owner)
        assert await w.store.blobs.resume(blob) == 0
        for at in range(0, len(_DATA), 65_536):
            assert await written(w, blob, at, _DATA[at : at + 65_536], NOW)
        assert (await found(w, blob)).received == len(_DATA)
        assert await w.store.blobs.finish(blob, NOW)
        assert (await found(w, blob)).complete
        assert await whole(w, blob) == _DATA
        assert await w.store.blobs.read(blob, 199_999, 100) == _DATA[-1:]
        assert not await written(w, blob, len(_DATA), b"more", NOW)
        assert (await w.store.blobs.check("")).damaged == []


async def test_an_upload_that_begins_again_is_the_same_one(engine: str) -> None:
    """A lost answer leaves no second upload that counts."""
    async with world(engine) as w:
        first, second = await asyncio.gather(begun(w, w.owner), begun(w, w.owner))
        assert first.id == second.id
        assert await w.store.blobs.resume(first) == 0
        assert await written(w, first, 0, _DATA[:70_000], NOW)
        again = await begun(w, w.owner)
        assert (again.id, again.received) == (first.id, 70_000)
        assert await w.store.blobs.resume(again) == 70_000
        other = await w.join("bob")
        assert (await begun(w, other)).id != first.id


async def test_another_hash_lets_the_upload_begin_from_its_first_byte(engine: str) -> None:
    async with world(engine) as w:
        blob = await begun(w, w.owner)
        await w.store.blobs.resume(blob)
        assert await written(w, blob, 0, b"x" * len(_DATA), NOW)
        assert not await w.store.blobs.finish(blob, NOW)
        again = await found(w, blob)
        assert (again.received, again.complete) == (0, False)
        assert await w.store.blobs.resume(again) == 0
        assert await written(w, blob, 0, _DATA, NOW)
        assert await w.store.blobs.finish(again, NOW)
        assert await whole(w, blob) == _DATA


async def test_bytes_behind_a_gap_are_not_taken(engine: str) -> None:
    async with world(engine) as w:
        blob = await begun(w, w.owner)
        await w.store.blobs.resume(blob)
        assert not await written(w, blob, 1, _DATA[1:], NOW)
        assert (await found(w, blob)).received == 0


async def test_quotas_count_unfinished_uploads_whole_and_one_of_two_at_once_is_refused(engine: str) -> None:
    async with world(engine) as w:
        size = len(_DATA)
        bounds = BlobBounds(mesh_bytes=2 * size, member_bytes=size, uploads=9, blobs=9)
        other = bytes(reversed(_DATA))
        both = await asyncio.gather(
            w.store.blobs.begin(wish(w, w.owner), bounds),
            w.store.blobs.begin(wish(w, w.owner, other), bounds),
        )
        refused = [one for one in both if isinstance(one, BlobRefused)]
        assert refused == [BlobRefused("member_quota_exceeded", size)]
        bob, eve = await w.join("bob"), await w.join("eve")
        assert isinstance(await w.store.blobs.begin(wish(w, bob), bounds), Blob)
        outcome = await w.store.blobs.begin(wish(w, eve), bounds)
        assert outcome == BlobRefused("mesh_quota_exceeded", 2 * size)
        (stored,) = (await w.store.blobs.stored()).values()
        assert (stored.size, stored.blobs, stored.uploads) == (2 * size, 2, 2)


async def test_a_member_that_is_revoked_uploads_nothing_more(engine: str) -> None:
    async with world(engine) as w:
        bob = await w.join("bob")
        blob = await begun(w, bob)
        await w.store.blobs.resume(blob)
        assert await written(w, blob, 0, _DATA[:70_000], NOW)
        await w.store.members.set_status(w.mesh.id, bob.id, "revoked")
        assert not await written(w, blob, 70_000, _DATA[70_000:], NOW)
        assert (await found(w, blob)).received == 70_000


async def test_a_blob_goes_a_day_after_its_last_recipient_has_fetched_it(engine: str) -> None:
    async with world(engine) as w:
        bob, eve = await w.join("bob"), await w.join("eve")
        await w.store.topics.create(w.mesh.id, "builds", "topic", w.owner.id, NOW)
        for one in (bob, eve, w.owner):
            await w.store.topics.subscribe(w.mesh.id, "builds", one.id, NOW)
        blob = await uploaded(w, w.owner)
        assert not await w.store.blobs.attach(blob, "never-sent", persistent=False)
        name = await sent(w, w.post(w.owner, "builds"))
        assert await w.store.blobs.attach(blob, name, persistent=False)
        await w.store.blobs.fetched(blob.id, bob.id, NOW)
        assert await w.store.blobs.sweep(NOW + 2 * IDLE_MS) == 0
        await w.store.blobs.fetched(blob.id, eve.id, NOW + IDLE_MS)
        assert await w.store.blobs.sweep(NOW + 2 * IDLE_MS - 1) == 0
        assert await w.store.blobs.sweep(NOW + 2 * IDLE_MS) == 1
        assert await is_gone(w, blob)


async def test_a_recipient_that_is_no_member_any_more_is_not_waited_for(engine: str) -> None:
    async with world(engine) as w:
        bob, eve = await w.join("bob"), await w.join("eve")
        blob = await uploaded(w, w.owner)
        for to in (bob, eve):
            assert await w.store.blobs.attach(blob, await sent(w, w.dm(w.owner, to)), persistent=False)
        await w.store.blobs.fetched(blob.id, bob.id, NOW)
        assert await w.store.blobs.sweep(NOW + IDLE_MS) == 0
        await w.store.members.set_status(w.mesh.id, eve.id, "revoked")
        assert await w.store.blobs.sweep(NOW + IDLE_MS) == 1


async def test_a_blob_of_a_queue_goes_a_day_after_one_worker_has_fetched_it(engine: str) -> None:
    async with world(engine) as w:
        bob = await w.join("bob")
        await w.store.topics.create(w.mesh.id, "jobs", "queue", w.owner.id, NOW)
        blob = await uploaded(w, w.owner)
        name = await sent(w, w.to_queue(w.owner, "jobs"))
        assert await w.store.blobs.attach(blob, name, persistent=False)
        assert await w.store.blobs.sweep(NOW + IDLE_MS) == 0
        await w.store.blobs.fetched(blob.id, bob.id, NOW)
        assert await w.store.blobs.sweep(NOW + IDLE_MS) == 1


async def test_blobs_that_no_recipient_fetches_go_after_thirty_days_but_persistent_ones_stay(
    engine: str,
) -> None:
    async with world(engine) as w:
        bob = await w.join("bob")
        blob, kept = await uploaded(w, w.owner), await uploaded(w, bob)
        name = await sent(w, w.dm(bob, w.owner))
        assert await w.store.blobs.attach(kept, name, persistent=True)
        await w.store.blobs.fetched(kept.id, w.owner.id, NOW)
        assert await w.store.blobs.sweep(NOW + LIFE_MS - 1) == 0
        assert await w.store.blobs.sweep(NOW + LIFE_MS) == 1
        assert await is_gone(w, blob)
        assert await w.store.blobs.sweep(NOW + 100 * LIFE_MS) == 0
        assert await w.store.blobs.delete(kept.id)
        assert await is_gone(w, kept)
        assert not await w.store.blobs.delete(kept.id)


async def test_an_upload_without_progress_goes_after_a_day_and_frees_its_quota(engine: str) -> None:
    async with world(engine) as w:
        blob = await begun(w, w.owner)
        await w.store.blobs.resume(blob)
        assert await written(w, blob, 0, _DATA[:70_000], NOW + 5)
        assert await w.store.blobs.sweep(NOW + IDLE_MS) == 0
        assert await w.store.blobs.sweep(NOW + IDLE_MS + 5) == 1
        assert await is_gone(w, blob)
        assert await w.store.blobs.stored() == {}
        assert await w.store.blobs.strays() == frozenset()


async def test_every_store_keeps_the_first_key_of_tickets(engine: str) -> None:
    async with world(engine) as w:
        assert await w.store.blobs.ticket_key(b"first") == b"first"
        assert await w.store.blobs.ticket_key(b"second") == b"first"


async def test_the_bounds_of_a_member_are_judged_in_their_order(engine: str) -> None:
    bounds = BlobBounds(mesh_bytes=10, member_bytes=5, uploads=2, blobs=3)

    def judged(size: int, usage: BlobUsage) -> str | None:
        refused = judge_upload(usage, size, bounds)
        return None if refused is None else refused.reason

    assert judged(5, BlobUsage(5, 0, 0, 0)) is None
    assert judged(6, BlobUsage(0, 0, 0, 0)) == "member_quota_exceeded"
    assert judged(5, BlobUsage(6, 0, 0, 0)) == "mesh_quota_exceeded"
    assert judged(1, BlobUsage(0, 0, 2, 2)) == "too_many_uploads"
    assert judged(1, BlobUsage(0, 0, 3, 0)) == "too_many_blobs"
