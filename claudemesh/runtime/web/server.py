"""HTTP server: uvicorn on a socket that is bound already, in the process's own event loop, under guard."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Generator

import uvicorn

from claudemesh.runtime.accepting import Accepting, OnShortage
from claudemesh.runtime.crowd import Caps
from claudemesh.runtime.guarded import Guard, Guardroom, MakeProtocol
from claudemesh.runtime.services import OnCrash, TaskOwner
from claudemesh.runtime.web.asgi import App, Receive, Scope, Send, transport_of
from claudemesh.runtime.web.heads import ADDRESS, DEADLINES, Deadlines, GuardedHttp
from claudemesh.runtime.web.websocket import LeanWebSocket

_KEEP_ALIVE_S = 60
_GRACE_S = 1.0
_CUT_S = 0.05
# The ASGI scope's key for the guard of its connection.
_GUARD = "claudemesh.guard"
# Log lines of the libraries for bad input, one for each request. The guard counts most of these cases, and
# logs the first. The last line is uvicorn's for a WebSocket request that was answered with an HTTP status.
_OF_BAD_INPUT = (
    "Invalid HTTP request received.",
    "Invalid UTF-8 sequence received from client.",
    "Unsupported upgrade request.",
    "No supported WebSocket library detected.",
    "ASGI callable returned without completing handshake.",
)


class _QuietServer(uvicorn.Server):
    """uvicorn without signal handlers and timer, and with the accept loop of `runtime/accepting.py`."""

    def __init__(
        self, config: uvicorn.Config, deadlines: Deadlines, accept: Callable[[MakeProtocol], Accepting]
    ) -> None:
        super().__init__(config)
        self._deadlines = deadlines
        self.accepting = accept(self._protocol)
        self._over = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        self.servers = [self.accepting]  # type: ignore[list-item]
        self.accepting.start()
        self.started = True

    async def main_loop(self) -> None:
        """Wait for `end`. uvicorn's own loop wakes an idle process ten times a second."""
        await self.on_tick(0)
        await self._over.wait()

    def end(self) -> None:
        """End `serve`."""
        self.should_exit = True
        self._over.set()

    def _protocol(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        state = self.lifespan.state
        return GuardedHttp(self.config, self.server_state, state, deadlines=self._deadlines)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_OF_BAD_INPUT)


def admit(scope: Scope) -> None:
    """Mark a request's connection as authenticated, so that the guard keeps it when strangers crowd in.

    An HTTP connection stays unauthenticated for the guard while the listener has its full number of members.
    So does one of a trusted proxy: the next request on it may be another client's.
    """
    guard: Guard | None = scope.get(_GUARD)
    if guard is None:
        return
    if scope["type"] == "websocket" or (guard.room.has_room and not guard.is_proxied):
        guard.admit()


@contextlib.contextmanager
def carrying(scope: Scope, floor: int) -> Generator[None]:
    """Let an authenticated request have a long body (`Guard.carrying`)."""
    guard: Guard | None = scope.get(_GUARD)
    if guard is None:
        yield
        return
    with guard.carrying(floor):
        yield


def address_of(scope: Scope) -> str:
    """Return the client's address for rate limits: the peer's, or the one that a trusted proxy names."""
    address: str | None = scope.get(ADDRESS)
    if address is not None:
        return address
    guard: Guard | None = scope.get(_GUARD)
    if guard is not None:
        return guard.address
    client = scope.get("client")
    return client[0] if client else ""


class HttpServer:
    """Serve an ASGI app on a bound socket, from `start` to `stop`.

    With `ws_max_size` it serves WebSocket too: no compression, messages up to so many bytes, a ping every
    20 s, and an end 20 s after a ping without an answer (docs/spec/protocol.md, WebSocket). `room` has the
    limits of connections.
    """

    def __init__(
        self,
        app: App,
        listener: socket.socket,
        *,
        ws_max_size: int | None = None,
        room: Guardroom | None = None,
        tls: ssl.SSLContext | None = None,
        on_crash: OnCrash | None = None,
        on_shortage: OnShortage = lambda reason: None,
        deadlines: Deadlines = DEADLINES,
    ) -> None:
        """`on_shortage` gets the reason why no connection can be accepted, and None once one can be."""
        logging.getLogger("uvicorn.error").addFilter(_is_news)
        self._app = app
        self._stopping = False
        config = uvicorn.Config(
            self._run,
            interface="asgi3",
            http=GuardedHttp,
            ws="none" if ws_max_size is None else LeanWebSocket,
            ws_max_size=ws_max_size or 0,
            ws_per_message_deflate=False,
            ws_ping_interval=20.0,
            ws_ping_timeout=20.0,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        self._tasks = TaskOwner(on_crash)

        def accept(make: MakeProtocol) -> Accepting:
            guards = room or Guardroom(Caps())
            return Accepting(listener, guards, make, tls=tls, on_crash=on_crash, on_shortage=on_shortage)

        self._server = _QuietServer(config, deadlines, accept)

    async def start(self) -> None:
        """Return once connections are accepted."""
        task = self._tasks.start(self._server.serve(), "http_server")
        while not self._server.started:
            if task.done():
                task.result()
                raise RuntimeError("the HTTP server ended while it was starting")
            await asyncio.sleep(0.001)

    def close_listener(self) -> None:
        """Accept no more connections; open ones are served as before."""
        self._server.accepting.close()

    async def stop(self, grace_s: float = _GRACE_S) -> None:
        """Stop gracefully: accept nothing more, and let requests in progress finish within `grace_s` seconds.

        Idle connections are closed at once. At the end of the grace period the others are aborted: clients
        that have not sent the whole request, or do not read the reply.
        """
        self._stopping = True
        self.close_listener()
        self._server.end()
        cutting = asyncio.get_running_loop().call_later(grace_s, self._cut_off)
        try:
            await self._tasks.join()
        finally:
            cutting.cancel()

    def _cut_off(self) -> None:
        for connection in list(self._server.server_state.connections):
            transport = connection.transport
            if transport is not None:
                transport.abort()
        # Requests first get their `http.disconnect`; only those that ignore it are cancelled.
        asyncio.get_running_loop().call_later(_CUT_S, self._cancel_requests)

    def _cancel_requests(self) -> None:
        for task in list(self._server.server_state.tasks):
            task.cancel()

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app. The cancellation of a request while the server stops is no error."""
        scope[_GUARD] = getattr(transport_of(send), "guard", None)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
