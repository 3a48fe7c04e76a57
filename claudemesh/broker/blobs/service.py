"""Service of blobs: begins uploads, gives tickets, and admits the requests that show one."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from msgspec import Struct

from claudemesh.broker.blobs.tickets import (
    KEY_BYTES,
    TICKET_LIFE_MS,
    Direction,
    Ticket,
    invalid,
    make_ticket,
    read_ticket,
)
from claudemesh.broker.blobs.uploads import Uploads
from claudemesh.broker.environment import Environment
from claudemesh.broker.settings import BrokerSettings
from claudemesh.broker.store.blobs import Blob, BlobBounds, BlobRefused, NewBlob
from claudemesh.broker.store.protocol import Store
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.filestream import sealed_size

_ID_BYTES: Final = 16
_BUSY_MS: Final = 1000
# A member may use this part of the quota of its mesh.
_SHARE: Final = 5


class Granted(Struct, frozen=True):
    """A ticket for a blob; `expires_at` is a time of the lived clock, as the broker's `server_time`."""

    blob: Blob
    ticket: str
    expires_at: int


class Blobs:
    """The blobs of one broker. `uploads` takes their bytes."""

    def __init__(self, store: Store, settings: BrokerSettings, env: Environment) -> None:
        self.store = store.blobs
        self.uploads = Uploads(store.blobs, env.lived)
        self._members = store.members
        self._env = env
        self._largest = sealed_size(settings.blob_bytes)
        quota = settings.blob_quota_bytes
        self._bounds = BlobBounds(
            mesh_bytes=quota,
            member_bytes=quota // _SHARE,
            uploads=env.limits.blob_uploads,
            blobs=env.limits.blobs,
        )
        self._key: bytes | None = None
        self._transfers: Counter[str] = Counter()

    async def begin(self, mesh_id: str, owner_id: str, size: int, digest: bytes) -> Granted:
        """Begin an upload, or find the one that was begun with the same content."""
        if size > self._largest:
            raise ProtocolError(
                "blob_too_large",
                f"A blob may have {self._largest} bytes at this broker. The operator can raise blob_bytes.",
            )
        new = NewBlob(secrets.token_hex(_ID_BYTES), mesh_id, owner_id, size, digest, self._env.lived.now_ms())
        outcome = await self.store.begin(new, self._bounds)
        if isinstance(outcome, BlobRefused):
            self._env.metrics.blobs_refused.labels(outcome.reason).inc()
            raise _refusal(outcome)
        return await self.grant(outcome, owner_id, "up")

    async def find(self, mesh_id: str, blob_id: str) -> Blob:
        """Return a blob of a mesh. `ProtocolError` blob_not_found."""
        blob = await self.store.get(mesh_id, blob_id)
        if blob is None:
            raise not_found()
        return blob

    async def grant(self, blob: Blob, member_id: str, direction: Direction) -> Granted:
        """Return a ticket of a member for a blob."""
        ends = self._env.lived.now_ms() + TICKET_LIFE_MS
        ticket = Ticket(blob.mesh_id, member_id, blob.id, direction, ends)
        return Granted(blob, make_ticket(await self._ticket_key(), ticket), ends)

    async def read(self, text: str, blob_id: str, direction: Direction) -> Ticket:
        """Return the ticket in a text. `ProtocolError` 401, before anything else of the request is read."""
        key, now_ms = await self._ticket_key(), self._env.lived.now_ms()
        return read_ticket(key, text, blob_id=blob_id, direction=direction, lived_ms=now_ms)

    async def admitted(self, ticket: Ticket) -> Blob:
        """Return the blob of a ticket. `ProtocolError`: its member is not active, or the blob is gone."""
        member = await self._members.find(ticket.mesh_id, ticket.member_id)
        if member is None or member.status != "active":
            raise invalid()
        return await self.find(ticket.mesh_id, ticket.blob_id)

    @contextmanager
    def transfer(self, member_id: str) -> Generator[None]:
        """Count a request that carries bytes. `ProtocolError` broker_busy beyond the limits."""
        limits = self._env.limits
        if (
            self._transfers.total() >= limits.transfers
            or self._transfers[member_id] >= limits.member_transfers
        ):
            raise ProtocolError(
                "broker_busy",
                "The broker carries too many files at the moment. Send the same again.",
                retry_after_ms=_BUSY_MS,
            )
        self._transfers[member_id] += 1
        self._env.metrics.blob_transfers.inc()
        try:
            yield
        finally:
            self._env.metrics.blob_transfers.dec()
            self._transfers[member_id] -= 1
            if not self._transfers[member_id]:
                del self._transfers[member_id]

    async def _ticket_key(self) -> bytes:
        if self._key is None:
            self._key = await self.store.ticket_key(secrets.token_bytes(KEY_BYTES))
        return self._key


def not_found() -> ProtocolError:
    """Return the refusal of a blob that is not there, or not complete."""
    return ProtocolError(
        "blob_not_found",
        "The broker has no such blob: it was deleted after its time, or a restore of the broker has lost it.",
    )


def _refusal(refused: BlobRefused) -> ProtocolError:
    if refused.reason == "too_many_uploads":
        return ProtocolError(
            refused.reason,
            f"A member may have {refused.limit} unfinished uploads. Finish one, or delete one.",
        )
    if refused.reason == "too_many_blobs":
        return ProtocolError(
            refused.reason, f"A member may have {refused.limit} files at the broker. Delete one."
        )
    whose = "The mesh" if refused.reason == "mesh_quota_exceeded" else "The member"
    return ProtocolError(
        "mesh_quota_exceeded",
        f"{whose} may have {refused.limit} bytes of files at the broker, and this one would pass them. "
        "Delete files, wait until fetched ones are deleted, or have the operator raise blob_quota_bytes.",
        quota="mesh" if refused.reason == "mesh_quota_exceeded" else "member",
    )
