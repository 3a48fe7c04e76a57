"""Replies of hooks: `{"reply": "…"}` on standard output becomes a send like any other.

Crash story: the id of a reply is computed from the event and the hook. A hook that runs again after a crash
replies under the same id, and the outbox keeps the first reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from claudemesh.daemon.hooks.loop_guard import LoopGuard
from claudemesh.daemon.outbox.request import SendRequest, Target
from claudemesh.daemon.outbox.states import Answer
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.sealing import MAX_HOPS
from claudemesh.protocol.traceparent import traceparent_in
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.logs import get_logger

log = get_logger("hooks")

# Statuses of a busy daemon or disk, after which the same reply is tried again.
_AGAIN = frozenset({429, 500, 503, 507})
_BACKOFF = Backoff(initial_s=0.2, cap_s=10)


def reply_in(stdout: bytes) -> str | None:
    """Return the reply that a hook printed, or None."""
    try:
        value = orjson.loads(stdout)
    except orjson.JSONDecodeError:
        return None
    reply = value.get("reply") if isinstance(value, dict) else None
    return reply if isinstance(reply, str) else None


class Replies:
    """Sends the replies of hooks."""

    def __init__(self, submit: Callable[[SendRequest], Awaitable[Answer]], loop_guard: LoopGuard) -> None:
        self._submit = submit
        self._loop_guard = loop_guard

    async def send(self, hook: str, event_id: str, event: Mapping[str, Any], text: str) -> bool:
        """Queue a reply, trying until it is queued or refused; return whether it is queued."""
        try:
            request = self._request(hook, event_id, event, text)
        except ProtocolError as error:
            log.warning("hook_reply_refused", hook=hook, event_id=event_id, error=error.code)
            return False
        failures = 0
        while True:
            answer = await self._submit(request)
            if answer.status < 400:
                return True
            if answer.status not in _AGAIN:
                code = answer.body.get("conflict") or answer.body.get("error")
                log.warning("hook_reply_refused", hook=hook, event_id=event_id, error=code)
                return False
            failures += 1
            await asyncio.sleep(_BACKOFF.delay_s(failures))

    def _request(self, hook: str, event_id: str, event: Mapping[str, Any], text: str) -> SendRequest:
        if event["kind"] == "topic":
            target = Target("topic", ref=event["topic"])
        else:
            target = Target("dm", ref=event["sender_pubkey"], session=event.get("from_session"))
        return SendRequest(
            target=target,
            message=text,
            reply_to_id=event["broker_message_id"],
            client_message_id=f"hook:{hook}:{event_id}",
            hops=min(event.get("hops", 0) + 1, MAX_HOPS),
            traceparent=traceparent_in(event.get("meta")),
            **self._loop_guard.admit(event),
        )
