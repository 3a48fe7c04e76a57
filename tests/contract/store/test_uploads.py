"""Uploads on both stores: parts in any order, two at once, a process that ends, a disk that fails."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager

import pytest

from claudemesh.broker.blobs.ranges import Part
from claudemesh.broker.blobs.uploads import ClientGone, Progress, Uploads
from claudemesh.broker.store.blobs import Blob, BlobBounds, NewBlob
from claudemesh.broker.store.types import Member
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime import failpoints
from claudemesh.runtime.errors import StorageError, StorageFull
from claudemesh.runtime.lived import LivedClock
from tests.support.clock import ManualClock
from tests.support.stores import ENGINES, NOW, World, world
from tests.support.waiting import WAIT_S

both = pytest.mark.parametrize("engine", list(ENGINES))
# The steps are those of files; rows are synced by their commit.
embedded = pytest.mark.parametrize("engine", ["sqlite"])

WIDE = BlobBounds(mesh_bytes=1 << 40, member_bytes=1 << 40, uploads=1000, blobs=1000)
DATA = random.Random(23).randbytes(3_500_000)


class Client:
    """Sends parts of one blob to a broker, in pieces as they come from a socket."""

    def __init__(self, w: World, blob: Blob, data: bytes = DATA) -> None:
        self.w = w
        self.blob = blob
        self.data = data
        self.broker = broker(w)
        self.hung_up = asyncio.Event()

    async def send(self, first: int, end: int, *, stops_at: int | None = None) -> Progress:
        """Send a part; the connection ends before `stops_at`."""
        return await self.take(first, end, self._pieces(first, end if stops_at is None else stops_at, end))

    async def take(self, first: int, end: int, pieces: AsyncIterator[bytes]) -> Progress:
        part = Part(first, end)
        return await self.broker.take(self.blob.id, self.row, lambda _: part, pieces, self.hung_up.set)

    async def row(self) -> Blob:
        found = await self.w.store.blobs.get(self.w.mesh.id, self.blob.id)
        assert found is not None
        return found

    async def stored(self) -> bytes:
        """The bytes of the complete blob."""
        blob, parts = await self.row(), bytearray()
        assert blob.complete
        while piece := await self.w.store.blobs.read(blob, len(parts), 1 << 20):
            parts += piece
        return bytes(parts)

    async def offset(self) -> int:
        return self.broker.offset(await self.row())

    async def _pieces(self, first: int, stops_at: int, end: int) -> AsyncIterator[bytes]:
        for at in range(first, min(stops_at, end), 100_000):
            yield self.data[at : min(at + 100_000, stops_at, end)]
        if stops_at < end:
            raise ClientGone


def broker(w: World) -> Uploads:
    """The uploads of a broker that has just started on this store. It syncs often, so that syncs overlap."""
    if w.store.blobs.sync_every:
        w.store.blobs.sync_every = 1 << 20  # type: ignore[misc]
    return Uploads(w.store.blobs, LivedClock(ManualClock()))


async def begun(w: World, owner: Member, data: bytes = DATA) -> Client:
    new = NewBlob(os.urandom(16).hex(), w.mesh.id, owner.id, len(data), hashlib.sha256(data).digest(), NOW)
    blob = await w.store.blobs.begin(new, WIDE)
    assert isinstance(blob, Blob)
    return Client(w, blob, data)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for the end of a sync."""
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110 - the store has no event
            await asyncio.sleep(0.01)


@contextmanager
def failing(point: str, code: int) -> Generator[None]:
    """Let a step fail as a disk does."""

    def strike(name: str) -> None:
        if name == point:
            raise OSError(code, os.strerror(code))

    failpoints.install(strike)
    try:
        yield
    finally:
        failpoints.install(None)


@both
async def test_parts_in_any_order_overlapping_repeated_and_cut_off_become_the_blob(engine: str) -> None:
    async with world(engine) as w:
        for seed in range(2):
            draw = random.Random(seed)
            client = await begun(w, w.owner, draw.randbytes(len(DATA)))
            while not (await client.row()).complete:
                at = await client.offset()
                first = min(max(0, draw.randrange(at - 300_000, at + 50_000)), len(DATA) - 1)
                end = draw.choice((draw.randrange(first, len(DATA)) + 1, len(DATA)))
                stops_at = draw.choice((end, end, draw.randrange(first, end + 1)))
                try:
                    progress = await client.send(first, end, stops_at=stops_at)
                except ProtocolError as error:
                    assert (error.code, first > at) == ("range_not_satisfiable", True), error
                    assert error.fields["offset"] == at
                except ClientGone:
                    assert at <= await client.offset() <= max(at, stops_at)
                else:
                    assert progress.offset == max(at, end)
            assert await client.stored() == client.data


@both
async def test_a_body_that_is_longer_or_shorter_than_its_range_is_refused_and_nothing_is_spoilt(
    engine: str,
) -> None:
    async with world(engine) as w:
        client = await begun(w, w.owner)

        async def body(*pieces: bytes) -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        for pieces in ((DATA[:600_000], DATA[600_000:]), (DATA[:900_000],)):
            with pytest.raises(ProtocolError) as caught:
                await client.take(0, 1_000_000, body(*pieces))
            assert caught.value.code == "invalid_range"
        await client.send(0, len(DATA))
        assert await client.stored() == DATA


@both
async def test_the_newer_of_two_uploads_of_a_blob_ends_the_older_and_the_blob_is_whole(engine: str) -> None:
    async with world(engine) as w:
        client = await begun(w, w.owner)
        arrived = asyncio.Event()

        async def stuck() -> AsyncIterator[bytes]:
            yield DATA[:1_500_000]
            arrived.set()
            await client.hung_up.wait()
            raise ClientGone

        older = asyncio.create_task(client.take(0, len(DATA), stuck()))
        await arrived.wait()
        newer = await client.send(0, len(DATA))
        with pytest.raises(ClientGone):
            await older
        assert newer.complete
        assert await client.stored() == DATA


@both
async def test_uploads_of_one_blob_at_two_brokers_do_not_spoil_it(engine: str) -> None:
    """On Postgres; an embedded store has one broker, one after the other."""
    async with world(engine) as w:
        client = await begun(w, w.owner)
        one, two = client.broker, broker(w)
        if engine == "postgres":
            both = await asyncio.gather(client.send(0, len(DATA)), _at(two, client), return_exceptions=True)
            lost = [one for one in both if isinstance(one, BaseException)]
            assert all(isinstance(each, ProtocolError) for each in lost), lost
        else:
            await client.send(0, 2_000_000)
        client.broker = two
        await client.send(await client.offset() if engine == "postgres" else 0, len(DATA))
        assert await client.stored() == DATA
        client.broker = one
        assert (await client.send(len(DATA) - 1, len(DATA))).complete


async def _at(uploads: Uploads, client: Client) -> Progress:
    other = Client(client.w, client.blob)
    other.broker = uploads
    return await other.send(0, len(DATA))


@both
@pytest.mark.parametrize("cut", [100_000, 1_100_000, 2_300_000])
async def test_an_upload_goes_on_at_a_broker_that_has_started_again(engine: str, cut: int) -> None:
    """The bytes of an earlier process are hashed with the rest."""
    async with world(engine) as w:
        client = await begun(w, w.owner)
        with pytest.raises(ClientGone):
            await client.send(0, len(DATA), stops_at=cut)
        client.broker = broker(w)
        at = (await client.row()).received
        assert at <= cut
        await client.send(at, len(DATA))
        assert await client.stored() == DATA


@both
async def test_bytes_of_an_earlier_process_with_another_hash_are_found(engine: str) -> None:
    async with world(engine) as w:
        client = await begun(w, w.owner)
        wrong = Client(w, client.blob, bytes(len(DATA)))
        await wrong.send(0, 2_000_000)
        await until(lambda: _is_counted(client))
        client.broker = broker(w)
        with pytest.raises(ProtocolError) as caught:
            await client.send((await client.row()).received, len(DATA))
        assert caught.value.code == "blob_hash_mismatch"
        assert await client.offset() == 0
        await client.send(0, len(DATA))
        assert await client.stored() == DATA


async def _is_counted(client: Client) -> bool:
    return (await client.row()).received > 0


@both
async def test_an_owner_that_is_revoked_in_the_middle_completes_nothing(engine: str) -> None:
    async with world(engine) as w:
        bob = await w.join("bob")
        client = await begun(w, bob)
        await client.send(0, 1_500_000)
        await w.store.members.set_status(w.mesh.id, bob.id, "revoked")
        with pytest.raises(ProtocolError):
            await client.send(await client.offset(), len(DATA))
        assert not (await client.row()).complete


@embedded
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("point", ["blob.after_write", "blob.after_sync", "blob.after_rename"])
async def test_a_disk_that_fails_at_a_step_loses_no_byte_that_counts(
    engine: str, point: str, code: int
) -> None:
    """The upload fails, and goes on at a byte that is on the disk."""
    async with world(engine) as w:
        client = await begun(w, w.owner)
        await client.send(0, 500_000)
        with failing(point, code), pytest.raises(StorageError) as caught:
            await client.send(500_000, len(DATA))
        assert isinstance(caught.value, StorageFull) == (code == errno.ENOSPC)
        assert not (await client.row()).complete
        await client.send(await _resumed(client), len(DATA))
        assert await client.stored() == DATA


async def _resumed(client: Client) -> int:
    """The offset at which the broker wants the next part."""
    try:
        return (await client.send(len(client.data) - 1, len(client.data))).offset
    except ProtocolError as error:
        offset: int = error.fields["offset"]
        return offset


@embedded
async def test_a_sync_that_fails_behind_an_answered_part_is_met_by_the_next(engine: str) -> None:
    """Its bytes were taken, but do not count."""
    async with world(engine) as w:
        client = await begun(w, w.owner)
        with failing("blob.after_sync", errno.EIO):
            await client.send(0, 1_100_000)
            await until(lambda: _has_failed(client))
        assert (await client.row()).received == 0
        await client.send(0, len(DATA))
        assert await client.stored() == DATA


async def _has_failed(client: Client) -> bool:
    return await client.offset() == 0
