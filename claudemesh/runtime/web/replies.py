"""HTTP replies, and how they are written: as JSON, in pieces, with a deadline for each piece."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson

from claudemesh.protocol.jsontext import plain
from claudemesh.runtime.aside import Slices
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sparse import SparseLog
from claudemesh.runtime.web.asgi import Message, Send, hang_up

log = get_logger("web")
# A client can cause it as often as it likes.
_slow = SparseLog(log)

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

WRITE_DEADLINE_S: Final = 10.0
JSON: Final = b"application/json"
CLOSE: Final[Headers] = ((b"connection", b"close"),)
SECURITY_HEADERS: Final[Headers] = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_JSON_HEADERS: Final[Headers] = ((b"content-type", JSON), *SECURITY_HEADERS)
# Size of the largest single write.
_PIECE: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP reply. `body` is a JSON object, a JSON text in parts, or bytes of another content type."""

    status: int
    body: Mapping[str, Any] | Sequence[bytes] | bytes
    headers: Headers = ()
    content_type: bytes = JSON


INTERNAL: Final = Reply(
    500,
    {"error": "internal_error", "message": "The server failed at this request. Its log has the reason."},
)


async def respond(send: Send, reply: Reply, write_deadline_s: float = WRITE_DEADLINE_S) -> None:
    """Send a reply. A client that does not accept a piece of it within the deadline is disconnected."""
    parts, reply = _encode(reply)
    total = sum(map(len, parts))
    content_type = _JSON_HEADERS if reply.content_type is JSON else _typed(reply.content_type)
    length = (b"content-length", b"%d" % total)
    await send(
        {
            "type": "http.response.start",
            "status": reply.status,
            "headers": [*content_type, length, *reply.headers],
        }
    )
    if total <= _PIECE:
        await send({"type": "http.response.body", "body": b"".join(parts)})
        return
    sent, slices = 0, Slices()
    for piece in _pieces(parts):
        await slices.rest()
        sent += len(piece)
        message = {"type": "http.response.body", "body": piece, "more_body": sent < total}
        await send_within(send, message, write_deadline_s)


async def deny_websocket(send: Send, reply: Reply) -> None:
    """Refuse a WebSocket request with an HTTP reply instead of the upgrade."""
    parts, reply = _encode(reply)
    headers = [*_typed(reply.content_type), *reply.headers]
    await send({"type": "websocket.http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"".join(parts)})


async def send_within(send: Send, message: Message, deadline_s: float) -> None:
    """Send one ASGI message. The connection is aborted when the client has not made room for it in time."""
    timer = asyncio.get_running_loop().call_later(deadline_s, _too_slow, send)
    try:
        await send(message)
    finally:
        timer.cancel()


def _too_slow(send: Send) -> None:
    _slow.info("client_too_slow")
    hang_up(send)


def _pieces(parts: Sequence[bytes]) -> Iterator[bytes]:
    """Join small parts and cut large ones, so that no write is larger than a piece."""
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        if size + len(part) > _PIECE and waiting:
            yield b"".join(waiting)
            waiting, size = [], 0
        if len(part) > _PIECE:
            yield from (part[start : start + _PIECE] for start in range(0, len(part), _PIECE))
            continue
        waiting.append(part)
        size += len(part)
    if waiting:
        yield b"".join(waiting)


def _encode(reply: Reply) -> tuple[Sequence[bytes], Reply]:
    if isinstance(reply.body, bytes):
        return [reply.body], reply
    if not isinstance(reply.body, Mapping):
        return reply.body, reply
    try:
        return [orjson.dumps(reply.body, default=plain)], reply
    except TypeError as error:
        log.error("reply_not_json", error=str(error), exc_info=error)
        return [orjson.dumps(INTERNAL.body)], INTERNAL


def _typed(content_type: bytes) -> Headers:
    return ((b"content-type", content_type), *SECURITY_HEADERS)
