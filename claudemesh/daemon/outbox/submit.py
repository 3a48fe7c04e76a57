"""Accepting a send: everything that could fail is decided first, then one transaction shared with others.

Crash story: before the commit the id is not consumed and the caller heard nothing; after it the row is
on the disk, and a retry finds it (docs/spec/daemon.md, POST /v1/send).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import orjson

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.outbox.request import SendRequest, Target
from claudemesh.daemon.outbox.sealer import Resolved, Sealer
from claudemesh.daemon.outbox.states import Answer, KnownRow, Status, answer_done, answer_known
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.types import NewRow, Submission
from claudemesh.protocol.envelope import PRIORITY_RANK
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.features import DEFAULT_INLINE_BYTES
from claudemesh.runtime.batching import Overloaded
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.errors import StorageBroken, StorageUnavailable

MAX_WAIT_MS = 30_000

_BUSY = Answer(
    429, {"error": "daemon_busy", "message": "Too many sends wait for the disk: try again shortly."}
)


class PreSend(Protocol):
    """What may change or refuse a send before there is a row."""

    @property
    def guards_sends(self) -> bool:
        """Whether it is to be asked."""
        ...

    async def before_send(self, request: SendRequest, message_id: str) -> SendRequest | Answer:
        """Return the send as it is to go out, or the answer that refuses it."""
        ...


class Submitter:
    """The door of the outbox: look up, insert, answer."""

    def __init__(
        self,
        store: OutboxStore,
        sealer: Sealer,
        directory: Directory,
        clock: Clock,
        new_id: Callable[[], str],
        enqueue: Callable[[Submission], asyncio.Future[Answer]],
        look_again: Callable[[Target], Awaitable[bool]],
        no_room: Callable[[], Answer | None],
        pre_send: PreSend | None = None,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._directory = directory
        self._clock = clock
        self._new_id = new_id
        self._enqueue = enqueue
        self._look_again = look_again
        self._no_room = no_room
        self._pre_send = pre_send
        self._asking: dict[str, asyncio.Lock] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self.inline_bytes = DEFAULT_INLINE_BYTES

    async def submit(self, request: SendRequest, *, wait_ms: int | None = None) -> Answer:
        """Accept a send durably, or answer what is known of its id; wait for the broker's word if asked."""
        submission = self.prepare(request)
        if not wait_ms:
            return await self._accept(request, submission)
        settled = self._listen(submission.client_message_id)
        try:
            answer = await self._accept(request, submission)
            if answer.status == 202:
                await asyncio.wait([settled], timeout=wait_ms / 1000)
                return await self._outcome(submission.client_message_id, answer)
            return answer
        finally:
            self._forget(submission.client_message_id, settled)

    async def _accept(self, request: SendRequest, submission: Submission) -> Answer:
        answer = await self._pass(request, submission)
        # The outbox does not know the id, and no list has the name: it may be new.
        if submission.unknown_destination and answer is submission.refusal:
            await self._look_again(request.target)
            # Also when nothing was asked: a list may have come while the outbox looked for the id.
            again = self.prepare(request, client_message_id=submission.client_message_id)
            if not again.unknown_destination:
                return await self._pass(request, again)
        return answer

    async def _pass(self, request: SendRequest, submission: Submission) -> Answer:
        """Write a send, by way of the pre-send hook when there is one and the id is new."""
        hook = self._pre_send
        if hook is None or not hook.guards_sends or submission.row is None:
            return await self._write(submission)
        message_id = submission.client_message_id
        # One at a time for an id: a retry that comes meanwhile finds the row, and asks no hook.
        lock = self._asking.setdefault(message_id, asyncio.Lock())
        try:
            async with lock:
                if await self._store.find(message_id) is None:
                    changed = await hook.before_send(request, message_id)
                    if isinstance(changed, Answer):
                        return changed
                    submission = self.prepare(request, client_message_id=message_id, changed=changed)
                return await self._write(submission)
        finally:
            if not lock.locked():
                self._asking.pop(message_id, None)

    async def _write(self, submission: Submission) -> Answer:
        try:
            return await self._enqueue(submission)
        except Overloaded:
            return _BUSY
        except StorageUnavailable as error:
            return Answer(503, {"error": "storage_unavailable", "message": f"Nothing was kept: {error}."})
        except StorageBroken as error:
            return Answer(500, {"error": "storage_broken", "message": f"Nothing more is accepted: {error}."})

    def release_waiting(self) -> None:
        """Answer those who wait for the broker's word with what is known now: the daemon stops."""
        for client_message_id in list(self._waiting):
            self.settled(client_message_id)

    def settled(self, client_message_id: str) -> None:
        """The drain says that this row is done or dead, on disk."""
        for future in self._waiting.pop(client_message_id, ()):
            if not future.done():
                future.set_result(None)

    def prepare(
        self,
        request: SendRequest,
        *,
        client_message_id: str | None = None,
        changed: SendRequest | None = None,
    ) -> Submission:
        """Turn a request into what the transaction needs; a refusal is only used when the id is new.

        The fingerprint covers what the caller asked for, the envelope what a hook `changed` it to.
        """
        message_id = client_message_id or request.client_message_id or self._new_id()
        try:
            to = self._sealer.resolve(request.target)
        except ProtocolError as error:
            return self._unresolved(request, message_id, error)
        fingerprint = self._sealer.fingerprint(request, to.kind, to.ref)

        def same_as(row: KnownRow, payload: bytes) -> bool:
            return self._same_under_earlier_key(request, to, row, payload)

        # Only a new id needs room; a known one is looked up all the same.
        if full := self._no_room():
            refusal = Answer(full.status, {**full.body, "client_message_id": message_id})
            return Submission(message_id, fingerprint, None, refusal, same_as)
        try:
            row = self._new_row(changed or request, to, message_id)
        except ProtocolError as error:
            return Submission(message_id, fingerprint, None, _refusal(error, message_id), same_as)
        return Submission(message_id, fingerprint, row, None, same_as)

    def _new_row(self, request: SendRequest, to: Resolved, message_id: str) -> NewRow:
        if to.peer is not None and to.peer.status != "active":
            raise ProtocolError("destination_not_found", f"{to.peer.name} has left this mesh.")
        if request.target.name is not None and (refusal := self._directory.refusals.of(request.target.name)):
            raise refusal.error()
        envelope = self._sealer.seal(request, to, message_id)
        if len(envelope.body) > self.inline_bytes:
            raise ProtocolError(
                "payload_too_large",
                f"The sealed message has {len(envelope.body)} bytes; the broker takes {self.inline_bytes}.",
                limit=self.inline_bytes,
            )
        return NewRow(
            self._new_id(), envelope.encode(), PRIORITY_RANK[request.priority], self._clock.wall_ms()
        )

    def _unresolved(self, request: SendRequest, message_id: str, error: ProtocolError) -> Submission:
        """No destination of this name is known (any more).

        A row of this id is compared under its own recipient; a topic's name is its own reference.
        """
        refusal = _refusal(error, message_id)
        target = request.target
        if target.kind != "dm":
            fingerprint = self._sealer.fingerprint(request, target.kind, target.ref or "")
            return Submission(message_id, fingerprint, None, refusal, unknown_destination=True)

        def same_as(row: KnownRow, payload: bytes) -> bool:
            ref = _payload_ref(payload)
            if ref is None or self._directory.by_key(ref) is not None:
                return False
            return self._sealer.fingerprint(request, "dm", ref) == row.request_fingerprint

        fingerprint = self._sealer.fingerprint(request, "dm", target.ref or "")
        return Submission(message_id, fingerprint, None, refusal, same_as, unknown_destination=True)

    def _same_under_earlier_key(
        self, request: SendRequest, to: Resolved, row: KnownRow, payload: bytes
    ) -> bool:
        ref = _payload_ref(payload)
        if to.peer is None or ref is None or ref not in to.peer.earlier_keys:
            return False
        return self._sealer.fingerprint(request, "dm", ref) == row.request_fingerprint

    def _listen(self, client_message_id: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client_message_id, []).append(future)
        return future

    async def _outcome(self, client_message_id: str, accepted: Answer) -> Answer:
        """What a retry would be told now, only that a send which has just been done is no duplicate."""
        found = await self._store.find(client_message_id)
        if found is None:
            return accepted
        row, _ = found
        return (
            answer_done(row, duplicate=False) if row.status is Status.DONE else answer_known(row, match=True)
        )

    def _forget(self, client_message_id: str, future: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(client_message_id, [])
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._waiting.pop(client_message_id, None)


def _refusal(error: ProtocolError, client_message_id: str) -> Answer:
    return Answer(error.status, {**error.as_body(), "client_message_id": client_message_id})


def _payload_ref(payload: bytes) -> str | None:
    if not payload:
        return None
    ref: str = orjson.loads(payload)["destination_ref"]
    return ref
