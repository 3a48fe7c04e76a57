"""`pre-send`: a hook that may change or refuse a send before its row is written.

It fails closed: while the hook cannot run, every send is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from msgspec.structs import replace

from claudemesh.daemon.hooks.manifest import PRE_SEND, Hook
from claudemesh.daemon.hooks.runner import Ran
from claudemesh.daemon.hooks.runs import HookRuns
from claudemesh.daemon.hooks.worker_pool import ForkServerLost
from claudemesh.daemon.outbox.request import SendRequest, parse_changes
from claudemesh.daemon.outbox.states import Answer
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.jsontext import JsonText
from claudemesh.runtime.logs import get_logger

log = get_logger("hooks")

REFUSES = 10
_REASON_CHARS = 300


def event_of(request: SendRequest, client_message_id: str) -> dict[str, Any]:
    """Return the standard input of the hook: the send as the caller requested it."""
    target = request.target
    return {
        "event": "pre-send",
        "client_message_id": client_message_id,
        "kind": target.kind,
        "to": target.name or target.ref,
        "message": request.message,
        "meta": JsonText(request.meta_json.decode()) if request.meta_json else None,
        "priority": request.priority,
        "reply_to_id": request.reply_to_id,
        "mentions": [mention.name or mention.ref for mention in request.mentions],
    }


class PreSendHook:
    """The pre-send hook of the manifest in force, if there is one."""

    def __init__(self, runs: HookRuns) -> None:
        self._runs = runs

    @property
    def guards_sends(self) -> bool:
        """Whether a pre-send hook is to be asked."""
        return self._runs.enabled(PRE_SEND) is not None

    async def before_send(self, request: SendRequest, client_message_id: str) -> SendRequest | Answer:
        """Run the hook; return the send as the hook has changed it, or the answer that refuses it."""
        hook = self._runs.enabled(PRE_SEND)
        if hook is None:
            return request
        ran = await self._run(hook, client_message_id, event_of(request, client_message_id))
        return _verdict(ran, request, client_message_id)

    async def _run(self, hook: Hook, client_message_id: str, event: Mapping[str, Any]) -> Ran | None:
        try:
            ran = await self._runs.run_guard(hook, client_message_id, event)
        except ForkServerLost as error:
            log.error("hook_not_run", hook=hook.name, event_id=client_message_id, reason=str(error))
            return None
        if ran is not None:
            self._runs.tell_of(hook, client_message_id, ran, replied=False)
        return ran


def _verdict(ran: Ran | None, request: SendRequest, client_message_id: str) -> SendRequest | Answer:
    if ran is None:
        return _failed(client_message_id, "it could not be run; the log says why")
    outcome = ran.outcome
    if outcome.exit == REFUSES:
        text = f"The pre-send hook refuses this message{_reason(outcome.stdout)}."
        return Answer(
            403, {"error": "refused_by_hook", "message": text, "client_message_id": client_message_id}
        )
    if outcome.exit != 0:
        return _failed(client_message_id, f"it ended with {outcome.word}")
    if outcome.stdout_bytes > len(outcome.stdout):
        return _failed(client_message_id, "it printed more than its output_size_limit")
    if not outcome.stdout.strip():
        return request
    try:
        return replace(request, **parse_changes(orjson.loads(outcome.stdout)))
    except (orjson.JSONDecodeError, ProtocolError) as error:
        text = error.message if isinstance(error, ProtocolError) else "no JSON"
        return _failed(client_message_id, f"it printed something else than message, meta or priority: {text}")


def _failed(client_message_id: str, why: str) -> Answer:
    text = f"The pre-send hook failed, so nothing was sent: {why.rstrip('.')}."
    return Answer(503, {"error": "hook_failed", "message": text, "client_message_id": client_message_id})


def _reason(stdout: bytes) -> str:
    try:
        value = orjson.loads(stdout)
    except orjson.JSONDecodeError:
        return ""
    reason = value.get("reason") if isinstance(value, dict) else None
    return f": {reason[:_REASON_CHARS].rstrip('.')}" if isinstance(reason, str) and reason else ""
