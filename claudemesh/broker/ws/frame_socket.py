"""A WebSocket as frames of text: one reader, one writer, and a close that never waits for the peer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson

from claudemesh.broker.connections.outbound import OutboundQueue
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.settings import Limits
from claudemesh.protocol.errors import CLOSE_KINDS, CloseCode, close_reason
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner
from claudemesh.runtime.web.asgi import Receive, Send, hang_up

log = get_logger("broker.wire")

TOO_BIG = 1009
INTERNAL = 1011
TRY_AGAIN_LATER = 1013
_STANDARD_KINDS = {TOO_BIG: "frame_too_large", INTERNAL: "internal_error", TRY_AGAIN_LATER: "try_again_later"}


class Closed(Exception):
    """Raised by `read` when the peer is gone or the connection is closing."""


class Closing(Exception):
    """Raised to close the connection with `code`, and `detail` in the reason."""

    def __init__(self, code: int, detail: str, kind: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.kind = kind


class FrameSocket:
    """One WebSocket.

    Frames wait in the outbound queue. Past its bounds, or when the socket takes nothing for `stall_s`, the
    connection is closed with 4005 (slow consumer). A peer that does not take the close frame within
    `close_grace_s` is cut off.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        limits: Limits,
        metrics: BrokerMetrics,
        on_change: Callable[[], None],
    ) -> None:
        self._receive = receive
        self._send = send
        self._limits = limits
        self._metrics = metrics
        self._on_change = on_change
        self.outbound = OutboundQueue(limits.outgoing_frames, limits.outgoing_bytes, on_change)
        self._tasks = TaskOwner()
        self._writer: asyncio.Task[None] | None = None
        self._close: tuple[int, str] | None = None
        self._cut: asyncio.TimerHandle | None = None
        self._gone = False
        # Frames that the socket had taken at the last check, and the checks since then without another one.
        self._taken = 0
        self._stalled = 0

    @property
    def is_closing(self) -> bool:
        """Whether the connection is closing or gone."""
        return self._gone or self._close is not None

    def start(self) -> None:
        """Begin to write."""
        self._writer = self._tasks.start(self._write(), "connection_writer")

    def put(self, frame: str) -> None:
        """Append a frame to the outbound queue; one beyond its bounds closes the connection with 4005."""
        if not self.outbound.put(frame):
            self.close(CloseCode.SLOW_CONSUMER, "Too many frames wait to be read.", discard=True)

    async def read(self) -> str:
        """Return the next text frame. Raises `Closed`; a binary frame is a protocol error.

        Frames that came before the peer went are read to the end, also after the writer has found it gone,
        because they may acknowledge deliveries.
        """
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._gone = True
            raise Closed
        if self._close is not None:
            raise Closed
        text = message.get("text")
        if text is None:
            raise Closing(CloseCode.PROTOCOL_ERROR, "A frame must be a text message.")
        result: str = text
        return result

    def close(self, code: int, detail: str = "", *, kind: str | None = None, discard: bool = False) -> None:
        """Close after the outbound queue is written (`discard`: at once). Only the first call counts."""
        if self.is_closing:
            return
        kind = kind or (CLOSE_KINDS[CloseCode(code)] if code in CLOSE_KINDS else _STANDARD_KINDS[code])
        self._close = (code, _reason(code, kind, detail))
        self._metrics.closes.labels(kind).inc()
        self.outbound.finish(discard=discard)
        self._cut = asyncio.get_running_loop().call_later(self._limits.close_grace_s, self._abort)
        self._on_change()

    async def end(self) -> None:
        """Return when the close frame is written, or cannot be, and no task of this connection runs."""
        self.outbound.finish(discard=self._gone)
        if self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer], timeout=self._limits.close_grace_s)
            if not self._writer.done():
                self._abort()
        if self._cut is not None:
            self._cut.cancel()
        await self._tasks.stop()

    def check_progress(self, most_stalled: int) -> None:
        """Close with 4005 at the check after `most_stalled` ones without a taken frame although frames wait.

        Checks are counted and not time: a process that was paused has not given its peers the time.
        """
        taken = self.outbound.taken
        if self.outbound.idle or taken != self._taken:
            self._taken, self._stalled = taken, 0
        elif self._stalled < most_stalled:
            self._stalled += 1
        else:
            self.close(CloseCode.SLOW_CONSUMER, "The peer does not read its socket.", discard=True)

    async def _write(self) -> None:
        try:
            while (frame := await self.outbound.next()) is not None:
                await self._send({"type": "websocket.send", "text": frame})
            if self._close is not None and not self._gone:
                code, reason = self._close
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except Exception as error:
            # OSError and RuntimeError: the peer is gone, or a ping was not answered; the reader is told as
            # well.
            # After any other error the transport is cut, because a connection without its writer is dead.
            if not isinstance(error, (OSError, RuntimeError)):
                log.error("connection_writer_failed", error=repr(error), exc_info=error)
                self._abort()
            self._gone = True
            self.outbound.finish(discard=True)
            self._on_change()

    def _abort(self) -> None:
        """Abort the connection of a peer that reads nothing."""
        hang_up(self._send)


def _reason(code: int, kind: str, detail: str) -> str:
    if code in CLOSE_KINDS:
        return close_reason(CloseCode(code), kind=kind, detail=detail)
    return orjson.dumps({"kind": kind, "feature": "", "detail": detail}).decode()
