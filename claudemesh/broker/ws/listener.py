"""The WebSocket listener: refusals before the upgrade, and the set of connections."""

from __future__ import annotations

import asyncio
from functools import partial

from claudemesh.broker.addresses import arrival_of
from claudemesh.broker.context import Context
from claudemesh.broker.ws.connection import Connection
from claudemesh.protocol.errors import CloseCode
from claudemesh.protocol.wire import SUBPROTOCOL, WEBSOCKET_PATH
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import repeat
from claudemesh.runtime.web.asgi import Receive, Scope, Send
from claudemesh.runtime.web.errors import HttpRefusal, refused
from claudemesh.runtime.web.replies import deny_websocket
from claudemesh.runtime.web.server import admit

log = get_logger("broker.listener")

_CHECKS_PER_STALL = 4
_BACKOFF = Backoff(initial_s=1, cap_s=30)
# Members that a line of the log names at most.
_MOST_NAMED = 20


class Listener:
    """Serves WebSocket requests. While `connections` are authenticated, one more is answered 503.

    Connections that are not authenticated yet are bounded by the guard (http/guard.py).
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket request from upgrade to close."""
        await receive()
        refusal = self._refusal(scope)
        if refusal is not None:
            await deny_websocket(send, refused(refusal))
            return
        connection = Connection(self._context, arrival_of(scope), receive, send, partial(admit, scope))
        self._connections.add(connection)
        self._empty.clear()
        try:
            await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
            await connection.run()
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._empty.set()

    async def watch(self) -> None:
        """Close slow consumers, for as long as this runs."""
        every_s = self._context.settings.limits.stall_s / _CHECKS_PER_STALL
        await repeat(self._check_progress, every_s, "slow_consumers", _BACKOFF, self._context.degraded)

    async def _check_progress(self) -> None:
        for connection in list(self._connections):
            connection.check_progress(_CHECKS_PER_STALL)

    async def drain(self, timeout_s: float) -> None:
        """Close each connection with 4006 when its deliveries are acknowledged; wait `timeout_s` for all.

        An acknowledgement without its connection is lost, and a queue message would go to another consumer.
        """
        for connection in list(self._connections):
            connection.drain()
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            self._log_unacknowledged(timeout_s)

    def _log_unacknowledged(self, after_s: float) -> None:
        """Log the connections whose deliveries are not acknowledged; the deliveries stay owed."""
        opened = [connection for connection in self._connections if connection.is_open]
        owed = [(one.member_id, one.principal.delivery.flow.unacked) for one in opened]
        members = sorted({member for member, count in owed if count})
        log.warning(
            "acks_missing",
            reason="The broker stops, and does not wait longer. These deliveries are made again.",
            deliveries=sum(count for _, count in owed),
            members=members[:_MOST_NAMED],
            connections=len(self._connections),
            after_s=after_s,
        )

    async def close_all(self) -> None:
        """Close every connection with 4006 after its queue is written; return when all have ended."""
        for connection in list(self._connections):
            connection.close(CloseCode.DRAINING, "The broker is stopping. Connect again.")
        await self._empty.wait()

    def _refusal(self, scope: Scope) -> HttpRefusal | None:
        context, limits = self._context, self._context.settings.limits
        if scope["path"] != WEBSOCKET_PATH:
            return HttpRefusal(404, "not_found", f"The WebSocket is at {WEBSOCKET_PATH}.")
        if any(name == b"origin" for name, _ in scope["headers"]):
            return HttpRefusal(
                403,
                "origin_not_allowed",
                "A broker takes no connections from web pages. Connect without Origin.",
            )
        if SUBPROTOCOL not in scope.get("subprotocols", ()):
            return HttpRefusal(
                400,
                "subprotocol_required",
                f"The request does not ask for {SUBPROTOCOL}. Ask for it.",
            )
        if context.state.draining:
            return HttpRefusal(503, "broker_draining", "This broker is stopping. Connect again.")
        if len(self._connections) - context.state.handshakes >= limits.connections:
            return HttpRefusal(
                503,
                "too_many_connections",
                "This broker has as many connections as it takes. Connect again later.",
            )
        return None
