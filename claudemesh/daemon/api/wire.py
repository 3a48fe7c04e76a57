"""Bytes to and from the client, each with a bound on size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import orjson

from claudemesh.daemon.api.errors import CLOSE, INTERNAL, JSON, Refusal, Reply, log
from claudemesh.protocol.jsontext import plain
from claudemesh.runtime.aside import Slices
from claudemesh.runtime.http import BodyTooLarge, Message, Receive, Send, read_body

MAX_BODY: Final = 1 << 20
MAX_RESPONSE: Final = 10 << 20
BODY_DEADLINE_S: Final = 10.0
WRITE_DEADLINE_S: Final = 10.0
# Unread bytes of a refused body that the server may read and forget, so that the client sees the answer.
_DISCARDED: Final = 8 << 20
_PIECE: Final = 64 << 10

SECURITY_HEADERS: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_JSON_HEADERS: Final = ((b"content-type", JSON), *SECURITY_HEADERS)


async def body_of(receive: Receive) -> bytes:
    """Read a request's whole body. `Refusal` 413 past 1 MiB, 408 past 10 s; `ClientGone`."""
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            return await read_body(receive, MAX_BODY)
    except BodyTooLarge:
        raise too_large(None) from None
    except TimeoutError:
        raise Refusal(
            408, "request_timeout", f"Send the whole body within {BODY_DEADLINE_S:.0f} s.", headers=CLOSE
        ) from None


def too_large(length: int | None) -> Refusal:
    """The error of a body past 1 MiB; one of unknown or great length ends the connection too."""
    ends = length is None or length > _DISCARDED
    return Refusal(
        413,
        "payload_too_large",
        f"A body may have {MAX_BODY} bytes: send less, or share it as a file.",
        headers=CLOSE if ends else (),
        limit=MAX_BODY,
    )


async def respond(send: Send, reply: Reply) -> None:
    """Send a reply. A client that does not take a piece of it within 10 s is cut off."""
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
        await send_within(send, message, WRITE_DEADLINE_S)


async def send_within(send: Send, message: Message, deadline_s: float) -> None:
    """Send one ASGI message; when the client has not made room for it in time, the connection is cut."""
    timer = asyncio.get_running_loop().call_later(deadline_s, _too_slow, send)
    try:
        await send(message)
    finally:
        timer.cancel()


def _too_slow(send: Send) -> None:
    log.info("client_too_slow")
    hang_up(send)


def hang_up(send: Send) -> None:
    """Cut the connection, unsent bytes included.

    ASGI has no message for it: closing waits until the client has read, which this one does not.
    So the server's own object is asked, and without one nothing happens.
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()


def _pieces(parts: Sequence[bytes]) -> Iterator[bytes]:
    """Join small parts and cut large ones, so that no write is longer than a piece."""
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


def _typed(content_type: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"content-type", content_type), *SECURITY_HEADERS)
