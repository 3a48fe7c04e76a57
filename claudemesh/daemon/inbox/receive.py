"""Receive path: verify, store in batches, acknowledge after the commit (docs/spec/daemon.md, Inbox)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Protocol

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.peer import Peer
from claudemesh.daemon.inbox.patient_store import PatientStore
from claudemesh.daemon.inbox.publisher import InboxPublisher
from claudemesh.daemon.inbox.store import InboxRow
from claudemesh.daemon.inbox.verify import Invalid, Verifier, refusal_of
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.frames import Deliver
from claudemesh.runtime.aside import Slices
from claudemesh.runtime.batching import Batcher
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sparse import SparseLog
from claudemesh.runtime.tracing.spans import Begun

log = get_logger("receive")
_told = SparseLog(log)

# Twice the broker's window. A broker that exceeds it breaks the protocol, and the link is closed.
MAX_WAITING = 512


class Acknowledger(Protocol):
    """The part of the link that the receiver uses."""

    async def acknowledge(self, connection: int, delivery_ids: Sequence[int]) -> None:
        """Acknowledge deliveries that are on disk. The broker repeats a delivery whose acknowledgement is
        lost."""
        ...


class SealedWatch(Protocol):
    """The part of the unsealer that the receiver uses."""

    @property
    def topic_keys(self) -> int:
        """The count of topic keys that have come."""
        ...

    def stored(self, senders: Iterable[Peer], topic_keys: int) -> None:
        """Note the senders of messages that were stored sealed, and the count of topic keys, both as they
        were before the messages were tried."""
        ...


class ReceiveTracing(Protocol):
    """The part of the traces that the receiver uses."""

    def arriving(self) -> Begun:
        """Begin the reception of a batch."""
        ...

    def stored(self, rows: Sequence[InboxRow], begun: Begun) -> None:
        """Note that the messages of a batch are on the disk."""
        ...


class Receiver:
    """Verifies, stores and acknowledges deliveries, in batches that share a commit."""

    def __init__(
        self,
        store: PatientStore,
        verifier: Verifier,
        directory: Directory,
        know: Callable[[Collection[str]], Awaitable[None]],
        acknowledger: Acknowledger,
        publisher: InboxPublisher,
        clock: Clock,
        sealed: SealedWatch,
    ) -> None:
        """`know` asks for members by their ids."""
        self._store = store
        self._verifier = verifier
        self._directory = directory
        self._know = know
        self._acknowledger = acknowledger
        self._publisher = publisher
        self._clock = clock
        self._sealed = sealed
        self._batcher: Batcher[tuple[int, Deliver], None] = Batcher(
            self._take, max_batch=256, max_pending=MAX_WAITING
        )
        self._finishing = False
        self.invalid = 0
        # Reasons and senders of dropped deliveries that were logged. There are few of both.
        self._told: set[tuple[str, str]] = set()
        self.take_receipts: Callable[[Sequence[InboxRow]], Awaitable[None]] = _take_none
        self._tracing: ReceiveTracing | None = None
        self._mark: Callable[[Sequence[InboxRow]], Sequence[InboxRow]] = _as_they_are

    def on_rows(self, mark: Callable[[Sequence[InboxRow]], Sequence[InboxRow]]) -> None:
        """Let `mark` mark messages beyond the automatic turns of two sessions, before they are written."""
        self._mark = mark

    def trace(self, tracing: ReceiveTracing) -> None:
        """Tell of what arrives and is stored."""
        self._tracing = tracing

    def handle(self, connection: int, delivery: Deliver) -> None:
        """Take one delivery of a connection. Raises `Overloaded` when the broker ignores its window."""
        if self._finishing:
            # An unacknowledged delivery stays at the broker, for the next start or for another worker.
            return
        self._batcher.submit((connection, delivery)).add_done_callback(_log_failure)

    async def finish(self, timeout_s: float) -> None:
        """Take no more deliveries; return when all received ones are acknowledged, or after `timeout_s`.

        The link must stay open until then: a work queue gives an unacknowledged message to another worker.
        """
        self._finishing = True
        self._store.give_up()
        try:
            async with asyncio.timeout(timeout_s):
                await self._batcher.close()
        except TimeoutError:
            log.warning("deliveries_left_unacknowledged", after_s=timeout_s)

    async def close(self) -> None:
        """Stop, and return after the last write. A delivery that is not stored yet stays at the broker."""
        self._finishing = True
        self._store.give_up()
        await self._batcher.close()

    async def _take(self, batch: Sequence[tuple[int, Deliver]]) -> Sequence[None]:
        begun = None if self._tracing is None else self._tracing.arriving()
        known = await self._know_senders(batch)
        now_ms = self._clock.wall_ms()
        # A key that comes from here on may be too late for the attempt and too early for the commit.
        topic_keys = self._sealed.topic_keys
        ids = {delivery.sender.member_id for _, delivery in known}
        senders = {member_id: self._directory.by_id(member_id) for member_id in ids}
        opened = await self._open_all([delivery for _, delivery in known], now_ms)
        rows = self._mark([row for row in opened if not row.receipting.receipts])
        waiting = [row for row in rows if row.sealed and row.unreadable is None]
        sealers = [peer for row in waiting if (peer := senders[row.sender_member_id])]
        seqs = await self._store.insert(rows)
        self._publisher.stored(rows, seqs)
        if self._tracing is not None and begun is not None:
            self._tracing.stored([row for row, seq in zip(rows, seqs, strict=True) if seq is not None], begun)
        for row in rows:
            if row.unreadable is not None:
                _told.warning("message_unreadable", reason=row.unreadable, sender=row.sender_name)
        if sealers:
            _told.warning("messages_sealed", count=len(sealers), sender=sealers[0].name)
            self._sealed.stored(sealers, topic_keys)
        if len(rows) < len(opened):
            await self.take_receipts([row for row in opened if row.receipting.receipts])
        by_connection: dict[int, list[int]] = {}
        for connection, delivery in known:
            by_connection.setdefault(connection, []).append(delivery.delivery_id)
        for connection, delivery_ids in by_connection.items():
            await self._acknowledger.acknowledge(connection, delivery_ids)
        failpoint("receive.after_ack")
        return [None] * len(batch)

    async def _know_senders(self, batch: Sequence[tuple[int, Deliver]]) -> Sequence[tuple[int, Deliver]]:
        """Ask the broker once for senders that the directory lacks, or knows under other keys.

        Return the deliveries that can be opened. When the broker does not answer, those of unknown senders
        are left out: they stay unacknowledged, and the broker delivers them again.
        """

        def is_known(entry: tuple[int, Deliver]) -> bool:
            sender = entry[1].sender
            peer = self._directory.by_id(sender.member_id)
            return peer is not None and sender.pubkey in (peer.pubkey, *peer.earlier_keys)

        unknown = {entry[1].sender.member_id for entry in batch if not is_known(entry)}
        if not unknown:
            return batch
        try:
            await self._know(unknown)
        except ProtocolError as error:
            _told.warning("directory_refresh_failed", error=error.code)
            return list(filter(is_known, batch))
        return batch

    async def _open_all(self, deliveries: Sequence[Deliver], now_ms: int) -> list[InboxRow]:
        rows, slices = [], Slices()
        for delivery in deliveries:
            await slices.rest()
            if (row := await self._open(delivery, now_ms)) is not None:
                rows.append(row)
        return rows

    async def _open(self, delivery: Deliver, now_ms: int) -> InboxRow | None:
        sender = self._directory.by_id(delivery.sender.member_id)
        refused = refusal_of(sender, delivery.accepted_at)
        if sender is None or refused is not None:
            opened: InboxRow | Invalid = Invalid(refused or "unknown_sender")
        else:
            opened = await self._verifier.open(delivery, sender, now_ms)
        if isinstance(opened, Invalid):
            self._note_invalid(opened.reason, delivery, sender)
            return None
        return opened

    def _note_invalid(self, reason: str, delivery: Deliver, sender: Peer | None) -> None:
        """Count a delivery that is dropped; the first one of its reason and sender is logged."""
        self.invalid += 1
        self._publisher.dropped()
        name = "" if sender is None else sender.name
        if (reason, name) not in self._told:
            self._told.add((reason, name))
            broker_message_id = delivery.broker_message_id
            _told.warning("invalid_inbound", reason=reason, sender=name, broker_message_id=broker_message_id)


async def _take_none(rows: Sequence[InboxRow]) -> None:
    """Drop receipts."""


def _as_they_are(rows: Sequence[InboxRow]) -> Sequence[InboxRow]:
    return rows


def _log_failure(future: asyncio.Future[None]) -> None:
    if future.cancelled() or (error := future.exception()) is None:
        return
    if isinstance(error, StorageError):
        # The store has reported it already; the delivery is not acknowledged and comes again.
        _told.info("delivery_not_stored", error=str(error))
    else:
        log.error("receive_failed", error=repr(error), exc_info=error)
