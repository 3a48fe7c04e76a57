"""Replies as acknowledgements: a message that this host has answered is acknowledged.

Crash story: the reply is on the disk before its message is acknowledged. A crash between the two leaves the
message unacknowledged, and the same reply, sent again under its id, acknowledges it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.outbox.submitting import Submit
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.logs import get_logger

log = get_logger("receipts")


class Replying:
    """Submits sends, and acknowledges the messages that they answer."""

    def __init__(
        self,
        submit: Submit,
        note: Callable[[str, str | None], Awaitable[None]],
        in_loop: Callable[[SendRequest, str], bool],
    ) -> None:
        """`note` gets the broker's id of an answered message, and the session that answers. `in_loop` gets a
        send and its id, and returns whether it wakes no session any more."""
        self._submit = submit
        self._note = note
        self._in_loop = in_loop

    async def submit(
        self,
        request: SendRequest,
        *,
        wait_ms: int | None = None,
        on_queued: Callable[[], None] | None = None,
    ) -> Answer:
        """Accept a send durably, or answer from the row of a known id."""
        answer = await self._submit(request, wait_ms=wait_ms, on_queued=on_queued)
        if request.reply_to_id is not None and answer.status < 400:
            failpoint("reply.before_acknowledgement")
            try:
                await self._note(request.reply_to_id, request.from_session)
            except StorageError as error:
                # The reply is accepted. Its message stays unacknowledged.
                log.warning("reply_not_noted", error=str(error))
        if request.hops and answer.status < 400:
            is_beyond = self._in_loop(request, str(answer.body["client_message_id"]))
            return replace(answer, body={**answer.body, "in_loop": is_beyond})
        return answer
