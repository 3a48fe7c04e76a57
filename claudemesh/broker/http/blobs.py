"""The bytes of blobs over HTTP: `PUT` and `GET /v1/blobs/{id}`, streamed (docs/spec/protocol.md, Blobs).

A request without a valid ticket is answered from its head: nothing else of it is read, and no database is
asked.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from functools import partial
from typing import Final

from claudemesh.broker.blobs.ranges import Part, uploaded_part, wanted_part
from claudemesh.broker.blobs.service import not_found
from claudemesh.broker.blobs.tickets import Direction, Ticket, invalid
from claudemesh.broker.blobs.uploads import ClientGone
from claudemesh.broker.context import Context
from claudemesh.broker.http.failures import reply_to
from claudemesh.broker.store.blobs import Blob
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.errors import StorageFull
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sparse import SparseLog
from claudemesh.runtime.uncached import Bytes
from claudemesh.runtime.web.asgi import Receive, Scope, Send, hang_up, is_gone
from claudemesh.runtime.web.errors import HttpRefusal, method_not_allowed, refused
from claudemesh.runtime.web.replies import CLOSE, SECURITY_HEADERS, Reply, respond, send_within
from claudemesh.runtime.web.server import admit, carrying

_log = SparseLog(get_logger("broker.blobs"))

PREFIX: Final = "/v1/blobs/"
_ID: Final = re.compile(r"[0-9a-f]{32}")
_READ: Final = 1 << 20
_WRITE: Final = 256 << 10
# Bytes of a download after which it is checked again that its member is active and its blob is there.
_CHECKED_EVERY: Final = 16 << 20
# Unread bytes of a refused part that the server reads and drops, so that the client sees the reply.
_DROPPED: Final = 8 << 20
_DISK_FULL: Final = (
    "The disk of the broker is full. Nothing is lost: the upload goes on where it is when there is space."
)


class BlobRoutes:
    """The ASGI app of `/v1/blobs/{id}`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._blobs = context.blobs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            blob_id = scope["raw_path"].decode("ascii").removeprefix(PREFIX)
            if _ID.fullmatch(blob_id) is None:
                raise not_found()
            if scope["method"] == "PUT":
                await respond(send, await self._upload(scope, receive, send, blob_id))
            elif scope["method"] in ("GET", "HEAD"):
                await self._download(scope, send, blob_id)
            else:
                raise method_not_allowed(("GET", "PUT"))
        except ClientGone:
            return
        except Exception as error:
            await respond(send, _closing(scope, self._reply_to(error)))

    async def _upload(self, scope: Scope, receive: Receive, send: Send, blob_id: str) -> Reply:
        ticket = await self._ticket(scope, blob_id, "up")
        with self._blobs.transfer(ticket.member_id):
            admit(scope)
            with carrying(scope, self._context.settings.limits.blob_floor):
                body = _Body(receive)
                try:
                    return await self._take(ticket, scope, body, partial(hang_up, send))
                finally:
                    self._context.metrics.blob_bytes.labels("up").inc(body.size)
                    length = _length(scope)
                    if length is not None and length <= _DROPPED:
                        await body.drop()

    async def _take(self, ticket: Ticket, scope: Scope, body: _Body, end: Callable[[], None]) -> Reply:
        find, part_of = partial(self._blobs.admitted, ticket), partial(_part, scope)
        progress = await self._blobs.uploads.take(ticket.blob_id, find, part_of, body.pieces(), end)
        size = progress.blob.size
        if progress.complete and progress.is_new:
            self._context.metrics.blobs_completed.inc()
            self._context.audit.record(
                ticket.mesh_id, "blob_stored", ticket.member_id, blob_id=ticket.blob_id, size=size
            )
        return Reply(200, {"offset": progress.offset, "size": size, "complete": progress.complete})

    async def _download(self, scope: Scope, send: Send, blob_id: str) -> None:
        ticket = await self._ticket(scope, blob_id, "down")
        with self._blobs.transfer(ticket.member_id):
            blob = await self._blobs.admitted(ticket)
            if not blob.complete:
                raise not_found()
            wanted = wanted_part(_header(scope, b"range"), blob.size)
            part = wanted or Part(0, blob.size)
            first = await self._read(blob, part.first, part.end)
            if not first:
                _log.warning("blob_bytes_missing", blob_id=blob_id)
                raise not_found()
            admit(scope)
            await send(_head(blob, part, is_part=wanted is not None))
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            try:
                await self._send(ticket, blob, part, first, send)
            except ClientGone:
                raise
            except Exception as error:
                # The head is sent, so that the reply can only end too early.
                self._context.degraded.failed("blobs", error)
                hang_up(send)

    async def _send(self, ticket: Ticket, blob: Blob, part: Part, piece: Bytes, send: Send) -> None:
        """Send a part whose first piece is given. The next piece is read while one is sent."""
        at, checked = part.first, part.first
        while piece:
            at += len(piece)
            sending = self._send_piece(piece, at < part.end, send)
            _, piece = await asyncio.gather(sending, self._read(blob, at, part.end))
            if at - checked >= _CHECKED_EVERY:
                await self._blobs.admitted(ticket)
                checked = at
        if at < part.end:
            _log.warning("blob_bytes_missing", blob_id=blob.id)
            hang_up(send)

    async def _send_piece(self, piece: Bytes, has_more: bool, send: Send) -> None:
        counted = self._context.metrics.blob_bytes.labels("down")
        write_s = self._context.settings.limits.unread_s
        for begin in range(0, len(piece), _WRITE):
            body = memoryview(piece)[begin : begin + _WRITE]
            is_open = has_more or begin + len(body) < len(piece)
            await send_within(
                send, {"type": "http.response.body", "body": body, "more_body": is_open}, write_s
            )
            # The server itself ends a connection that is not kept alive, behind the last piece.
            if is_open and is_gone(send):
                # Without this the rest of the blob would be read for no client.
                raise ClientGone
            counted.inc(len(body))

    async def _read(self, blob: Blob, at: int, end: int) -> Bytes:
        return await self._blobs.store.read(blob, at, min(_READ, end - at)) if at < end else b""

    async def _ticket(self, scope: Scope, blob_id: str, direction: Direction) -> Ticket:
        given = _header(scope, b"authorization")
        scheme, _, text = (given or "").partition(" ")
        if scheme.lower() != "bearer":
            raise invalid()
        return await self._blobs.read(text.strip(), blob_id, direction)

    def _reply_to(self, error: Exception) -> Reply:
        if isinstance(error, StorageFull):
            self._context.degraded.failed("blobs", error)
            return refused(HttpRefusal(507, "insufficient_storage", _DISK_FULL))
        return reply_to(self._context.degraded, error)


def _part(scope: Scope, blob: Blob) -> Part:
    """Return the part of a blob that a request sends."""
    part = uploaded_part(_header(scope, b"content-range") or "", blob.size)
    if _length(scope) not in (None, part.length):
        raise ProtocolError("invalid_range", "Content-Length and Content-Range differ.")
    return part


class _Body:
    """The body of a request: its pieces as they arrive, or dropped so that the client reads the reply."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_over = False
        self.size = 0

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Yield the pieces. `ClientGone`."""
        while not self._is_over:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._is_over = True
                raise ClientGone
            self._is_over = not message.get("more_body", False)
            piece: bytes = message.get("body", b"")
            self.size += len(piece)
            if piece:
                yield piece

    async def drop(self) -> None:
        """Read the rest, and drop it."""
        with suppress(ClientGone):
            async for _ in self.pieces():
                pass


def _head(blob: Blob, part: Part, *, is_part: bool) -> dict[str, object]:
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", b"%d" % part.length),
        (b"accept-ranges", b"bytes"),
        *SECURITY_HEADERS,
    ]
    if is_part:
        headers.append((b"content-range", b"bytes %d-%d/%d" % (part.first, part.end - 1, blob.size)))
    return {"type": "http.response.start", "status": 206 if is_part else 200, "headers": headers}


def _closing(scope: Scope, reply: Reply) -> Reply:
    """Let the connection end with a reply to a long part that was not read."""
    length = _length(scope)
    if scope["method"] != "PUT" or (length is not None and length <= _DROPPED):
        return reply
    return Reply(reply.status, reply.body, (*reply.headers, *CLOSE), reply.content_type)


def _header(scope: Scope, name: bytes) -> str | None:
    """Return the only value of a header, None without one and with several."""
    values = [value.decode("latin-1") for found, value in scope["headers"] if found == name]
    return values[0] if len(values) == 1 else None


def _length(scope: Scope) -> int | None:
    text = _header(scope, b"content-length")
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
