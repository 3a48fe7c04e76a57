"""Inbox side of local sends (daemon/outbox/local.py): messages from this host to itself, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from claudemesh.daemon.inbox.publisher import InboxPublisher
from claudemesh.daemon.inbox.store import InboxRow, InboxStore
from claudemesh.daemon.inbox.verify import HooksOf
from claudemesh.daemon.outbox.destinations import Destination
from claudemesh.daemon.outbox.local import LocalSend
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.states import Status
from claudemesh.daemon.outbox.types import NewRow, Settlement, TakenRow
from claudemesh.protocol.canonical import canonical_meta
from claudemesh.protocol.sealing import Receipting
from claudemesh.protocol.traceparent import with_traceparent
from claudemesh.runtime.batching import Batcher
from claudemesh.runtime.failpoints import failpoint

_MAX_WAITING = 512


class LocalHost(Struct, frozen=True, kw_only=True):
    """This host: its member and its mesh, and the parts that a received message passes.

    `hooks` names the hooks that a message starts, `mark` marks messages of a loop, `check_room` raises
    `StorageFull`, and `settled` gets each send that has ended.
    """

    member_id: str
    slug: str
    hooks: HooksOf
    mark: Callable[[Sequence[InboxRow]], Sequence[InboxRow]]
    check_room: Callable[[int], None]
    now_ms: Callable[[], int]
    settled: Callable[[Settlement], None]


class LocalInbox:
    """Writes local messages into the inbox, and publishes them like received ones."""

    def __init__(self, store: InboxStore, publisher: InboxPublisher, host: LocalHost) -> None:
        self._store = store
        self._publisher = publisher
        self._host = host
        self._batcher: Batcher[LocalSend, tuple[str, bool]] = Batcher(
            self._take, max_batch=256, max_pending=_MAX_WAITING
        )

    def takes(self, request: SendRequest, to: Destination | None) -> bool:
        """Whether a send goes to this host itself. A file is at the broker, so its message goes there too."""
        if to is None or to.peer is None or to.peer.member_id != self._host.member_id:
            return False
        return not request.attachments and not request.receipts

    async def deliver(self, send: LocalSend, on_queued: Callable[[], None] | None) -> tuple[str, bool]:
        """Write a message, or find it. Return its id, and whether it is the one of this request."""
        found = self._batcher.submit(send)
        if on_queued is not None:
            on_queued()
        return await found

    def written(self, client_message_id: str, row: NewRow) -> None:
        """Count a send whose row is on the disk, and let its receipts be told."""
        taken = TakenRow(row.id, client_message_id, row.payload, 0)
        self._host.settled(Settlement(taken, Status.DONE, broker_message_id=row.local))
        if row.receipt is not None:
            self._store.receipts.wake()

    async def close(self) -> None:
        """Take no more messages, and return when all are written."""
        await self._batcher.close()

    async def _take(self, batch: Sequence[LocalSend]) -> Sequence[tuple[str, bool]]:
        self._host.check_room(sum(len(send.request.message) for send in batch))
        rows = self._host.mark([self._row(send) for send in batch])
        seqs = await self._store.insert(rows)
        # At once, so that the messages of an inbox are published in the order of their seq.
        self._publisher.stored(rows, seqs)
        failpoint("local.after_inbox_commit")
        pairs = zip(batch, seqs, strict=True)
        return [(send.message_id, True) if seq else await self._known(send) for send, seq in pairs]

    async def _known(self, send: LocalSend) -> tuple[str, bool]:
        """Return the message that has the id of a send. Of one that was removed since, the id is left."""
        found = await self._store.local_of(self._host.member_id, send.client_message_id)
        if found is None:
            return send.message_id, True
        message_id, fingerprint = found
        return message_id, fingerprint == send.request_fingerprint

    def _row(self, send: LocalSend) -> InboxRow:
        request, member = send.request, send.member
        is_mentioned = member.pubkey in send.mentions
        return InboxRow(
            id=send.message_id,
            client_message_id=send.client_message_id,
            sender_member_id=member.member_id,
            broker_message_id=send.message_id,
            history_id=None,
            mesh=self._host.slug,
            kind="dm",
            topic=None,
            sender_pubkey=member.pubkey,
            sender_name=member.name,
            body=request.message,
            meta=_meta(request),
            priority=request.priority,
            received_at=self._host.now_ms(),
            reply_to_id=request.reply_to_id,
            mentioned=is_mentioned,
            from_session=request.from_session,
            to_session=request.target.session,
            hops=request.hops,
            receipting=Receipting(request.receipt),
            hooks=self._host.hooks("dm", None, mentioned=is_mentioned, has_files=False),
            request_fingerprint=send.request_fingerprint,
        )


def _meta(request: SendRequest) -> str | None:
    """Return the meta as a received message has it."""
    if request.traceparent is None:
        return request.canonical_meta.decode() or None
    return canonical_meta(with_traceparent(request.meta, request.traceparent)).decode()
