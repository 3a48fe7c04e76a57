"""Recovery of stuck rows by an operator: send again under a new id, or drop.

A row that was ever sent is looked up at the broker first: if the message is there, the row becomes
done and nothing is sent twice (docs/spec/daemon.md, Outbox).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from claudemesh.daemon.outbox.age import OutboxClocks
from claudemesh.daemon.outbox.destinations import Destination, Destinations
from claudemesh.daemon.outbox.request import SendRequest, Target, parse_send
from claudemesh.daemon.outbox.sealer import Sealer
from claudemesh.daemon.outbox.states import Answer, Status, may_move
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.submit import Submitter
from claudemesh.daemon.outbox.types import NewRow, Submission
from claudemesh.protocol.envelope import Envelope
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.ids import check_client_message_id
from claudemesh.protocol.receipts import ReceiptState
from claudemesh.protocol.replies import SendStatuses
from claudemesh.protocol.wire import PRIORITY_RANK
from claudemesh.runtime.destinations import spell_destination

PATCH_FIELDS = frozenset({"to", "message", "meta", "priority", "reply_to_id", "mentions"})

StatusLookup = Callable[[Sequence[str]], Awaitable[SendStatuses]]


class OutboxRecovery:
    """Requeues and drops single rows for an operator."""

    def __init__(
        self,
        store: OutboxStore,
        submitter: Submitter,
        sealer: Sealer,
        destinations: Destinations,
        clocks: OutboxClocks,
        new_id: Callable[[], str],
        look_up: StatusLookup,
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._submitter = submitter
        self._sealer = sealer
        self._destinations = destinations
        self._clocks = clocks
        self._new_id = new_id
        self._look_up = look_up
        self._wake = wake

    async def requeue(
        self, key: str, *, new_client_message_id: str | None, patch: Mapping[str, Any] | None
    ) -> Answer:
        """Retire a dead or pending row and send its message, the same or patched, under a new id."""
        row = await self._store.raw(key)
        refusal = _not_recoverable(row, "requeued")
        if row is None or refusal is not None:
            return refusal or _NO_ROW
        found = await self._settled_at_broker(row)
        if found is not None:
            return found
        client_message_id = self._new_id()
        if new_client_message_id not in (None, "auto"):
            client_message_id = check_client_message_id(new_client_message_id)
        envelope = Envelope.decode(row["payload"])
        if patch:
            submission = self._submitter.prepare(self._patched(envelope, patch), client_message_id)
        else:
            submission = self._reissued(envelope, row, client_message_id)
        return await self._replace(row, submission)

    async def drop(self, key: str, by: str) -> Answer:
        """Retire a dead or pending row without a successor."""
        row = await self._store.raw(key)
        refusal = _not_recoverable(row, "dropped")
        if row is None or refusal is not None:
            return refusal or _NO_ROW
        status, _ = await self._store.replace(
            row["id"], None, attempts=row["attempts"], by=by, now=self._clocks.now()
        )
        if status is None or not may_move(status, Status.ABORTED):
            return _illegal(status, "dropped")
        return Answer(200, {"status": "aborted", "id": row["id"], "superseded_by": None})

    async def _replace(self, row: Mapping[str, Any], submission: Submission) -> Answer:
        status, answer = await self._store.replace(
            row["id"], submission, attempts=row["attempts"], by="operator", now=self._clocks.now()
        )
        self._sealer.written(submission.row)
        if answer is None:
            return _illegal(status, "requeued")
        if answer.status != 202 or submission.row is None:
            return answer
        self._wake()
        return Answer(
            200,
            {
                "status": "queued",
                "id": submission.row.id,
                "client_message_id": submission.client_message_id,
                "aborted": row["id"],
            },
        )

    async def _settled_at_broker(self, row: Mapping[str, Any]) -> Answer | None:
        if not row["attempts"]:
            return None
        client_message_id = row["client_message_id"]
        try:
            known = (await self._look_up([client_message_id]))[client_message_id]
        except ProtocolError as error:
            return Answer(
                503,
                {
                    "error": "broker_unavailable",
                    "message": "This row was sent before, and the broker cannot be asked now whether it has "
                    f"the message ({error.message}): try again once the daemon is connected.",
                },
            )
        if known is None:
            return None
        broker_message_id, history_id = known.broker_message_id, known.history_id
        await self._store.found_at_broker(row["id"], broker_message_id, history_id, self._clocks.now())
        return Answer(
            200,
            {
                "status": "done",
                "duplicate": True,
                "id": row["id"],
                "client_message_id": client_message_id,
                "broker_message_id": broker_message_id,
                "history_id": history_id,
            },
        )

    def _reissued(self, envelope: Envelope, row: Mapping[str, Any], client_message_id: str) -> Submission:
        try:
            fresh = self._sealer.reissue(envelope, self._destination(envelope), client_message_id)
        except ProtocolError as error:
            raise _sealed_to_other_keys(error) from error
        now_ms = self._clocks.now().wall_ms
        waits = envelope.destination_ref if fresh.seal.alg == "none" else None
        wish = row["receipt"] and ReceiptState(row["receipt"])
        recipient = envelope.destination_ref if envelope.destination_kind == "dm" else None
        rank = PRIORITY_RANK[envelope.priority]
        new_row = NewRow(self._new_id(), fresh.encode(), rank, now_ms, waits, wish, recipient)
        return Submission(client_message_id, row["request_fingerprint"], new_row)

    def _patched(self, envelope: Envelope, patch: Mapping[str, Any]) -> SendRequest:
        unknown = sorted(patch.keys() - PATCH_FIELDS)
        if unknown:
            allowed = ", ".join(sorted(PATCH_FIELDS))
            raise InvalidField("unknown_field", f"patch.{unknown[0][:64]}", f"A patch may change {allowed}.")
        kept = self._kept(envelope, needed="message" not in patch)
        attachments, session = kept.pop("attachments", ()), kept.pop("to_session", None)
        body: dict[str, Any] = {
            **kept,
            "priority": envelope.priority,
            "reply_to_id": envelope.reply_to_id,
            "mentions": list(envelope.mentions),
        }
        to = spell_destination(envelope.destination_kind, envelope.destination_ref)
        to = to if session is None else f"{to}/{session}"
        return replace(parse_send({**body, "to": to, **patch}), attachments=attachments)

    def _destination(self, envelope: Envelope) -> Destination:
        """Return the destination of a row. A topic or queue is not looked up again: it was known at
        acceptance."""
        if envelope.destination_kind == "dm":
            return self._destinations.resolve(Target("dm", ref=envelope.destination_ref))
        return Destination(envelope.destination_kind, envelope.destination_ref)

    def _kept(self, envelope: Envelope, *, needed: bool) -> dict[str, Any]:
        try:
            content = self._sealer.open_own(envelope, self._destination(envelope))
        except ProtocolError as error:
            if not needed and error.code == "cannot_open":
                return {}
            raise _sealed_to_other_keys(error) from error
        return {
            "message": content.message,
            "meta": content.meta,
            "attachments": content.attachments,
            "from_session": content.sessions.sender,
            "to_session": content.sessions.recipient,
            "hops": content.sessions.hops,
            "receipt": content.receipting.wish and content.receipting.wish.word,
        }


def _sealed_to_other_keys(error: ProtocolError) -> ProtocolError:
    """Return the error for a message that this host can no longer read; other errors unchanged."""
    if error.code != "cannot_open":
        return error
    return ProtocolError(
        "cannot_reseal",
        "This was sealed with keys that are not known here any more, so its text cannot be read: "
        "requeue it with a patch that holds the message, or drop it.",
    )


_NO_ROW = Answer(
    404,
    {
        "error": "not_found",
        "message": "The outbox holds no send with this id.",
        "next": "claudemesh daemon outbox list",
    },
)


def _not_recoverable(row: Mapping[str, Any] | None, verb: str) -> Answer | None:
    if row is None:
        return _NO_ROW
    status = Status(row["status"])
    return None if may_move(status, Status.ABORTED) else _illegal(status, verb)


def _illegal(status: Status | None, verb: str) -> Answer:
    return Answer(
        409,
        {
            "error": f"outbox_{status}",
            "message": f"This row is {status}; only a dead or a pending one can be {verb}.",
        },
    )
