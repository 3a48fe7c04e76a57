"""Acceptance of a send: resolve, fingerprint, seal once, then one transaction shared with other sends.

Crash story: before the commit the id is not consumed and the caller has no answer. After it the row is on
disk, and a retry finds it (docs/spec/daemon.md, POST /v1/send).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from claudemesh.daemon.outbox.callers import WaitingCallers
from claudemesh.daemon.outbox.destinations import Destination
from claudemesh.daemon.outbox.draft import Draft, Drafts, refusal
from claudemesh.daemon.outbox.id_locks import IdLocks
from claudemesh.daemon.outbox.local import LocalDelivery, LocalSend, unwritten
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.sealer import Sealer
from claudemesh.daemon.outbox.states import Answer, Status, answer_done, answer_known, answer_reused
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.types import NewRow, Submission
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.wire import PRIORITY_RANK
from claudemesh.runtime.batching import Overloaded
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.errors import StorageBroken, StorageUnavailable

# The answer to a probe: the outbox does not know its id.
_NEW: Final = Answer(0)
_BUSY = Answer(
    429, {"error": "daemon_busy", "message": "Too many sends wait for the disk: try again shortly."}
)
_NOT_KEPT: Final = (Overloaded, StorageUnavailable, StorageBroken)


class PreSend(Protocol):
    """The pre-send hook: it may change or refuse a send before there is a row."""

    @property
    def guards_sends(self) -> bool:
        """Whether a pre-send hook is configured."""
        ...

    async def before_send(self, request: SendRequest, client_message_id: str) -> SendRequest | Answer:
        """Return the send, perhaps changed, or the answer that refuses it."""
        ...


class Submitter:
    """Accepts sends of local programs and hooks, and answers each from the row of its id."""

    def __init__(
        self,
        store: OutboxStore,
        drafts: Drafts,
        sealer: Sealer,
        clock: Clock,
        new_id: Callable[[], str],
        callers: WaitingCallers,
        enqueue: Callable[[Submission], asyncio.Future[Answer]],
        pre_send: PreSend | None = None,
    ) -> None:
        self._store = store
        self._drafts = drafts
        self._sealer = sealer
        self._clock = clock
        self._new_id = new_id
        self._callers = callers
        self._enqueue = enqueue
        self._pre_send = pre_send
        self._asking = IdLocks()
        # The way into the inbox of this host, for sends to itself; None: they go to the broker.
        self._local: LocalDelivery | None = None

    def on_local(self, local: LocalDelivery) -> None:
        """Let `local` take the sends of this host to itself."""
        self._local = local

    async def submit(
        self,
        request: SendRequest,
        *,
        wait_ms: int | None = None,
        on_queued: Callable[[], None] | None = None,
    ) -> Answer:
        """Accept a send durably, or answer from the row of a known id.

        With `wait_ms`, wait up to that many milliseconds for the broker's result. `on_queued` is called when
        the send has its place among those that wait for a commit: a later one cannot overtake it.
        """
        client_message_id = request.client_message_id or self._new_id()
        if not wait_ms:
            return await self._accept(request, client_message_id, on_queued)
        settled = self._callers.add(client_message_id)
        try:
            answer = await self._accept(request, client_message_id, on_queued)
            if answer.status == 202:
                await asyncio.wait([settled], timeout=wait_ms / 1000)
                return await self._outcome(client_message_id, answer)
            return answer
        finally:
            self._callers.remove(client_message_id, settled)

    def prepare(self, request: SendRequest, client_message_id: str) -> Submission:
        """Resolve, fingerprint and seal a request."""
        return self._sealed(request, self._drafts.make(request, client_message_id))

    async def check(self, request: SendRequest, client_message_id: str) -> Answer | None:
        """Return the refusal of a send that is submitted later, None when it would be accepted now."""
        found = await self._store.find(client_message_id)
        if found is not None:
            return answer_known(found[0], match=False)
        submission = self.prepare(request, client_message_id)
        if submission.row is None and await self._drafts.look_again(request.target):
            submission = self.prepare(request, client_message_id)
        self._sealer.written(submission.row)
        return submission.refusal

    async def _accept(
        self, request: SendRequest, client_message_id: str, on_queued: Callable[[], None] | None
    ) -> Answer:
        found = self._drafts.make(request, client_message_id)
        answer = await self._pass(request, found, None if found.to is None else on_queued)
        # The id is new and the destination unknown: the destination may be new too.
        if found.to is None and answer is found.refusal:
            await self._drafts.look_again(request.target)
            # Resolve again even if no list came: one may have arrived during the look-up of the id.
            found = self._drafts.make(request, client_message_id)
            if found.to is not None:
                return await self._pass(request, found, on_queued)
        return answer

    async def _pass(self, request: SendRequest, found: Draft, on_queued: Callable[[], None] | None) -> Answer:
        """Write a send. A new id passes the pre-send hook first, if there is one."""
        client_message_id = found.client_message_id
        # Receipts hold no text of a caller.
        is_guarded = not request.receipts and self._pre_send is not None and self._pre_send.guards_sends
        is_local = self._local is not None and self._local.takes(request, found.to)
        is_plain = not (is_guarded or is_local or client_message_id in self._asking)
        if is_plain or found.refusal is not None:
            return await self._write(self._sealed(request, found), on_queued)
        # One at a time for an id: a retry that arrives meanwhile finds the row and does not run the hook.
        async with self._asking.hold(client_message_id):
            if is_guarded and await self._store.find(client_message_id) is None:
                assert self._pre_send is not None
                changed = await self._pre_send.before_send(request, client_message_id)
                if isinstance(changed, Answer):
                    return changed
                request = changed
            if is_local:
                return await self._write_local(request, found, on_queued)
            return await self._write(self._sealed(request, found), on_queued)

    async def _write_local(
        self, request: SendRequest, found: Draft, on_queued: Callable[[], None] | None
    ) -> Answer:
        """Write a send to this host: its message into the inbox, then its row, which is done."""
        assert self._local is not None and found.to is not None and found.to.peer is not None
        submission = self._sealed(request, found)
        if submission.row is None:
            return await self._write(submission, on_queued)
        # Every earlier send has its row by the answer. A later one with the same id waits for this one.
        answer = await self._write(submission._replace(row=None, refusal=_NEW), None)
        if answer is not _NEW:
            return answer
        client_message_id, fingerprint = found.client_message_id, found.request_fingerprint
        mentions = self._drafts.mentions(request, found)
        send = LocalSend(request, found.to.peer, client_message_id, fingerprint, self._new_id(), mentions)
        local = self._local
        try:
            delivered = await local.deliver(send, on_queued)
        except _NOT_KEPT as error:
            return _not_kept(error)
        message_id, is_same = delivered
        if not is_same:
            return answer_reused(submission.row.id, client_message_id, fingerprint, message_id)
        row = submission.row._replace(local=message_id)
        answer = await self._write(submission._replace(row=row), None)
        if answer.status >= 400:
            return unwritten(answer, client_message_id)
        local.written(client_message_id, row)
        return answer

    def _sealed(self, request: SendRequest, found: Draft) -> Submission:
        """Seal a draft. The fingerprint covers the caller's request, the envelope the request that the hook
        changed."""
        if found.refusal is not None or found.to is None:
            return found.submission(None, found.refusal)
        try:
            row = self._new_row(request, found.to, found)
        except ProtocolError as error:
            return found.submission(None, refusal(error, found.client_message_id))
        return found.submission(row, None)

    def _new_row(self, request: SendRequest, to: Destination, found: Draft) -> NewRow:
        mentions = self._drafts.mentions(request, found)
        envelope = self._sealer.seal(request, to, mentions, found.client_message_id)
        now_ms = self._clock.wall_ms()
        waits = to.ref if envelope.seal.alg == "none" else None
        rank, wish = PRIORITY_RANK[request.priority], request.receipt
        recipient = to.ref if to.peer is not None and wish is not None else None
        return NewRow(self._new_id(), envelope.encode(), rank, now_ms, waits, wish, recipient)

    async def _write(self, submission: Submission, on_queued: Callable[[], None] | None) -> Answer:
        try:
            answer = self._enqueue(submission)
            if on_queued is not None:
                on_queued()
            return await answer
        except _NOT_KEPT as error:
            return _not_kept(error)
        finally:
            self._sealer.written(submission.row)

    async def _outcome(self, client_message_id: str, accepted: Answer) -> Answer:
        """Return the answer that a retry would get now, without `duplicate` for a send that was just
        accepted."""
        found = await self._store.find(client_message_id)
        if found is None:
            return accepted
        row, _ = found
        return (
            answer_done(row, duplicate=False) if row.status is Status.DONE else answer_known(row, match=True)
        )


def _not_kept(error: Exception) -> Answer:
    """Return the answer that refuses a send that could not be written."""
    if isinstance(error, StorageUnavailable):
        return Answer(503, {"error": "storage_unavailable", "message": f"Nothing was kept: {error}."})
    if isinstance(error, StorageBroken):
        return Answer(500, {"error": "storage_broken", "message": f"Nothing more is accepted: {error}."})
    return _BUSY
