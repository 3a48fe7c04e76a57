"""Link: the one WebSocket to the broker, from dialling to its end (docs/spec/protocol.md, WebSocket)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import Struct
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from claudemesh.daemon.address import BrokerAddress
from claudemesh.daemon.calls import ANSWER_S, Calls, T, WrongReplies
from claudemesh.daemon.link.close_codes import exit_after_close, in_words, is_rotated_out, is_unknown_member
from claudemesh.daemon.link.dial import Dial
from claudemesh.daemon.link.faults import LinkFaults
from claudemesh.daemon.link.handshake import Agreed, Handshake, refuse_unknown
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.protocol.errors import (
    CloseCode,
    InvalidField,
    ProtocolError,
    close_reason,
)
from claudemesh.protocol.fields import FrameId, Json
from claudemesh.protocol.frames import (
    Call,
    Deliver,
    DeliverAck,
    Delivers,
    ErrorFrame,
    Event,
    Frame,
    Reply,
    Send,
    SendResult,
    SendResults,
    Sends,
    UnknownFrame,
    announced,
    batches_of,
    decode_frame,
    deliveries_of,
    encode_frame,
    encode_send,
    encode_sends,
)
from claudemesh.protocol.replies import BadReply, Read
from claudemesh.protocol.session import Session
from claudemesh.protocol.wire import DAEMON_FRAME_BYTES, PING_INTERVAL_S, SUBPROTOCOL, WEBSOCKET_PATH
from claudemesh.runtime import aside
from claudemesh.runtime.backoff import Backoff, Pause
from claudemesh.runtime.batching import Overloaded
from claudemesh.runtime.episodes import Episodes
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.guardedlink import GuardedLink
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.outward import proxy_for, tls_context
from claudemesh.runtime.sparse import SparseLog

log = get_logger("link")
# The broker can cause it as often as it likes.
_errors = SparseLog(log)

_HANDSHAKE_S = 10.0
_DRAINING_JITTER_S = 1.0
# Frames that are read before other tasks of the loop may run.
_AT_ONCE = 8


class Opened(Struct, frozen=True):
    """A link that is ready for traffic: the number of its connection, and what was agreed on it."""

    connection: int
    agreed: Agreed


class LinkHandlers(Struct, frozen=True, kw_only=True):
    """Handlers of a link's events and frames. None of them blocks.

    `link_down` takes the reason as text, and the close code of the broker (0 when it sent none). `on_event`
    also takes an upper bound for the number of the event's values. `readmit` asks a broker that has lost this
    member to add it again, and `rotated_out` reacts to a broker that knows a newer key of it. Both return the
    exit of the daemon, or None when the link has to be tried again. `on_revoked` takes the statement that a
    broker gives before it refuses this member as revoked; it is not verified.
    """

    link_up: Callable[[Opened], None]
    link_down: Callable[[str, int], None]
    on_result: Callable[[SendResult], None]
    on_deliver: Callable[[int, Deliver], None]
    on_event: Callable[[Event, int], Awaitable[None]]
    readmit: Callable[[], Awaitable[ExitWith | None]]
    rotated_out: Callable[[], ExitWith | None]
    on_revoked: Callable[[Json], None] = lambda statement: None


class Link:
    """Connects, reconnects, and carries frames; `run` ends only by cancellation or with `ExitWith`."""

    def __init__(
        self,
        address: BrokerAddress,
        handshake: Handshake,
        backoff: Backoff,
        replies: WrongReplies,
        *,
        on_local_cause: Callable[[str | None], None] = lambda text: None,
        on_limit: Callable[[str], None] = lambda limit: None,
        dial: Callable[..., Dial] = Dial,
    ) -> None:
        """`on_local_cause` gets the local cause that keeps the link from opening, and None when it opens.

        `on_limit` counts the limits of the guard that the broker exceeds.
        """
        self._limits = Episodes(log, on_limit)
        self._faults = LinkFaults(lambda: address.dialled, on_local_cause)
        self._address = address
        self._dial = dial
        self.backoff = backoff
        self.pause = Pause()
        self._handshake = handshake
        # Both are set while the session is open.
        self._socket: ClientConnection | None = None
        self._session: Session | None = None
        self._connection = 0
        self._replies = replies
        self._calls = Calls(partial(self._send, Call), replies)
        # Of the last handshake; None before the first.
        self.agreed: Agreed | None = None
        self.last_error: str | None = None
        self._reset_for: str | None = None
        # Whether the last attempt ended because the broker broke the protocol.
        self._broken = False

    @property
    def broker_version(self) -> str | None:
        """The broker's version as of the last handshake, None before the first."""
        return None if self.agreed is None else self.agreed.broker_version

    @property
    def connected(self) -> bool:
        """Whether frames can leave now."""
        return self._socket is not None

    @property
    def lag_ms(self) -> int | None:
        """The last ping's round trip in milliseconds, None before the first."""
        socket = self._socket
        return None if socket is None or not socket.latency else round(socket.latency * 1000)

    async def run(self, handlers: LinkHandlers) -> None:
        """Keep the link open. Raise `ExitWith` when the broker refuses this daemon for good."""
        failures = 0
        while True:
            opened_before, is_trial = self._connection, self._address.begin()
            try:
                code, reason = await self._attempt(handlers)
                has_opened = self._connection > opened_before
                # A new address that fails in any way is left for the present one.
                if has_opened or not is_trial:
                    await self._end_after(code, reason, handlers)
                reason = in_words(code, reason)
            except ExitWith as ending:
                if not is_trial or self._connection > opened_before:
                    raise
                code, reason, has_opened = 0, ending.message, False
            if not has_opened:
                self._address.failed(reason)
            self.last_error = reason
            # A broker that was connected a moment ago is dialled again soon. One that cannot be reached, or
            # that breaks the protocol, is dialled at growing intervals.
            is_new = has_opened and not self._broken
            failures = 1 if is_new else failures + 1
            delay_s = self.backoff.delay_s(failures)
            if code == CloseCode.DRAINING:
                delay_s = random.uniform(0, _DRAINING_JITTER_S)
            log.info("link_down", reason=reason, retry_in_ms=round(delay_s * 1000))
            await self.pause.rest(delay_s)

    async def _end_after(self, code: int, reason: str, handlers: LinkHandlers) -> None:
        """Raise `ExitWith` when a close says that no later attempt can succeed."""
        ending = exit_after_close(code, reason, self._address.dialled)
        if is_unknown_member(code, reason):
            ending = await handlers.readmit()
        if is_rotated_out(code, reason):
            ending = handlers.rotated_out()
        if ending is not None:
            raise ending

    async def send_envelope(self, request_id: str, envelope: bytes) -> None:
        """Send a frozen envelope unchanged. Raise `ConnectionError` without a link."""
        await self._send(Send, encode_send(request_id, envelope))

    async def send_envelopes(self, envelopes: Sequence[tuple[str, bytes]]) -> None:
        """Send frozen envelopes unchanged, each with its id, in as few frames as the broker takes."""
        most = 1 if self.agreed is None else self.agreed.features.batch_items
        for batch in batches_of(envelopes, lambda one: len(one[1]), most):
            if len(batch) == 1:
                await self.send_envelope(*batch[0])
            else:
                await self._send(Sends, encode_sends(batch))

    async def acknowledge(self, connection: int, delivery_ids: Sequence[int]) -> None:
        """Acknowledge deliveries on the connection that brought them; on another one they are unknown."""
        if connection != self._connection:
            return
        try:
            await self._send(DeliverAck, encode_frame(DeliverAck(tuple(delivery_ids))).encode())
        except ConnectionError:
            log.debug("ack_not_sent", count=len(delivery_ids))

    async def call(
        self, method: str, params: Mapping[str, Any], read: Read[T], timeout_s: float = ANSWER_S
    ) -> T:
        """Ask the broker, and return what `read` makes of its answer. `ProtocolError`: see `calls.Ask`."""
        return await self._calls.ask(method, params, read, timeout_s)

    def prepare(self, settings: DaemonSettings) -> Callable[[], None]:
        """Return the commit of another backoff, which also applies to a running wait."""

        def commit() -> None:
            self.backoff.become(settings.backoff)
            self.pause.end()

        return commit

    def reset(self, reason: str) -> None:
        """Abort the link without waiting for the broker. A new one is opened after a backoff."""
        if self._socket is not None:
            log.warning("link_reset", reason=reason)
            self._reset_for = reason
            self._socket.transport.abort()

    async def close(self) -> None:
        """Close the link in order, so that the broker does not have to wait for a ping."""
        if self._socket is not None:
            await self._socket.close(1000, "")

    async def _send(self, kind: type[Frame], text: bytes) -> None:
        socket, session = self._socket, self._session
        if socket is None or session is None:
            raise ConnectionError("no link")
        session.send(kind)
        try:
            await socket.send(text, text=True)
        except ConnectionClosed as error:
            raise ConnectionError("the link closed") from error

    async def _attempt(self, handlers: LinkHandlers) -> tuple[int, str]:
        """Connect and serve; return the close code (0 without one) and the reason of the end."""
        url = self._address.dialled.rstrip("/") + WEBSOCKET_PATH
        opened = False
        try:
            proxy = proxy_for(url)
            async with self._dial(
                url,
                ssl=tls_context(self._address.ca_file) if url.startswith("wss:") else None,
                subprotocols=[SUBPROTOCOL],
                compression=None,
                max_size=DAEMON_FRAME_BYTES,
                ping_interval=PING_INTERVAL_S,
                ping_timeout=PING_INTERVAL_S,
                open_timeout=_HANDSHAKE_S,
                close_timeout=2,
                proxy=None if proxy is None else proxy.url,
                max_queue=64,
                create_connection=partial(GuardedLink, on_limit=self._limits.note),
            ) as socket:
                opened = True
                return await self._serve(socket, handlers)
        except ExitWith:
            raise
        except Exception as error:
            # Retry after any error: queued sends are safe, and the daemon needs a link.
            return 0, self._faults.reason(error, opened=opened)

    async def _serve(self, socket: ClientConnection, handlers: LinkHandlers) -> tuple[int, str]:
        session = Session("daemon")
        self._broken = False
        try:
            async with asyncio.timeout(_HANDSHAKE_S):
                agreed = await self._handshake.shake(socket, session, handlers.on_revoked)
            self._connection += 1
            self._socket, self._session = socket, session
            self._reset_for = None
            self.agreed = agreed
            self.last_error = None
            self._faults.opened()
            self._address.opened()
            handlers.link_up(Opened(self._connection, agreed))
            await self._read(socket, session, handlers)
        except ConnectionClosed as error:
            cut_for = socket.cut_for if isinstance(socket, GuardedLink) else None
            received, lost = error.rcvd, self._reset_for or cut_for or "the connection was lost"
            return (received.code, received.reason) if received else (0, lost)
        except (ProtocolError, Overloaded) as error:
            detail = error.message if isinstance(error, ProtocolError) else "more deliveries than the window"
            await socket.close(
                CloseCode.PROTOCOL_ERROR, close_reason(CloseCode.PROTOCOL_ERROR, detail=detail)
            )
            self._broken = True
            return 0, f"the broker broke the protocol: {detail}"
        finally:
            self._down(socket, handlers)
        return 0, "the broker closed the connection"

    def _down(self, socket: ClientConnection, handlers: LinkHandlers) -> None:
        if self._socket is not socket:
            return
        self._socket = self._session = None
        self._calls.link_down()
        code, protocol = socket.close_code, socket.protocol
        # The broker echoes a close of this daemon with the same code.
        theirs = protocol.close_rcvd if protocol.close_rcvd_then_sent is not False else None
        handlers.link_down(str(code) if code else "lost", theirs.code if theirs is not None else 0)

    async def _read(self, socket: ClientConnection, session: Session, handlers: LinkHandlers) -> None:
        connection, slices, count = self._connection, aside.Slices(), 0
        async for text in socket:
            count += 1
            if count % _AT_ONCE == 0:
                # The library hands out frames that wait without a pause.
                await slices.rest()
            frame: Frame | None = deliveries_of(text) if isinstance(text, str) else None
            weight = 0 if frame is not None else aside.weight_of(text)
            try:
                if frame is None:
                    frame = await aside.run(weight, decode_frame, text)
            except InvalidField as error:
                self._skip(error, *await aside.run(weight, announced, text))
                continue
            session.receive(type(frame))
            if isinstance(frame, SendResult):
                handlers.on_result(frame)
            elif isinstance(frame, Deliver):
                handlers.on_deliver(connection, frame)
            elif isinstance(frame, (SendResults, Delivers)):
                self._take_all(frame, connection, handlers)
                await slices.rest()
            elif isinstance(frame, Reply):
                self._calls.answer(frame, weight)
            elif isinstance(frame, Event):
                await handlers.on_event(frame, weight)
            elif isinstance(frame, ErrorFrame):
                _errors.warning("broker_error", code=frame.code, detail=frame.message)
            elif isinstance(frame, UnknownFrame):
                await refuse_unknown(socket, session, frame)

    def _take_all(self, frame: SendResults | Delivers, connection: int, handlers: LinkHandlers) -> None:
        for item in frame.items:
            if isinstance(item, SendResult):
                handlers.on_result(item)
            else:
                handlers.on_deliver(connection, item)
        for _, error in frame.refused:
            self._skip(error, frame.TYPE, None)

    def _skip(self, error: ProtocolError, kind: str, request_id: FrameId | None) -> None:
        """Skip a malformed frame. The link stays open."""
        self._replies.note(f"{kind} frame" if kind else "frame", error)
        if kind == Reply.TYPE and request_id is not None:
            self._calls.fail(str(request_id), BadReply("reply", error.message))
