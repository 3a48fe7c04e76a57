"""HTTP over uvicorn inside our own process: sockets we bind ourselves, no signal handling of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import stat
from collections.abc import Awaitable, Callable, Generator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias

import orjson
import uvicorn

from claudemesh.runtime.accepting import Accepting, OnShortage
from claudemesh.runtime.crowd import Caps
from claudemesh.runtime.exits import CANNOT_CREATE, TEMPORARY, ExitWith
from claudemesh.runtime.guarded import Guard, Guardroom
from claudemesh.runtime.heads import GuardedHttp
from claudemesh.runtime.oserrors import cannot, explain, local_cause
from claudemesh.runtime.services import OnCrash, TaskOwner

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_SOCKET_PATH_LIMIT = 107  # sun_path on Linux, less the closing zero; macOS has 103
_BACKLOG = 1024
_KEEP_ALIVE_S = 60
_GRACE_S = 1.0
_CUT_S = 0.05
# The key of an ASGI scope under which its connection's guard stands.
_GUARD = "claudemesh.guard"
# What the libraries log for every bad input; the guard counts it, and logs it once.
_OF_BAD_INPUT = (
    "Invalid HTTP request received.",
    "Invalid UTF-8 sequence received from client.",
    "Unsupported upgrade request.",
    "No supported WebSocket library detected.",
)


class BodyTooLarge(Exception):
    """The body passes the limit; nothing of it was kept."""


class ClientGone(Exception):
    """The client went away before its body was complete."""


class _QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers, which are the process's, and with an accept loop of ours."""

    accepting: Accepting

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        self.servers = [self.accepting]  # type: ignore[list-item]
        self.accepting.start()
        self.started = True

    def protocol(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        return GuardedHttp(self.config, self.server_state, self.lifespan.state)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_OF_BAD_INPUT)


def admit(scope: Scope) -> None:
    """Tell the guard of a request's connection that whoever is at the other end has proved who it is.

    A connection of HTTP stays a stranger's, and gives way as such, while the room has all its members.
    """
    guard: Guard | None = scope.get(_GUARD)
    if guard is not None and (scope["type"] == "websocket" or guard.room.has_room):
        guard.admit()


def address_of(scope: Scope) -> str:
    """Return the address that a request is counted under: its client's, or the one that its proxy names."""
    guard: Guard | None = scope.get(_GUARD)
    if guard is not None:
        return guard.address
    client = scope.get("client")
    return client[0] if client else ""


class HttpServer:
    """Serve an ASGI app on a bound socket, from `start` to `stop`.

    With `ws` it speaks WebSocket too: no compression, messages up to `ws_max_size` bytes,
    pings every 20 s and gone after 20 s without an answer (protocol.md, WebSocket).
    Every connection is under guard; `room` has the rules.
    """

    def __init__(
        self,
        app: App,
        listener: socket.socket,
        *,
        ws: bool = False,
        ws_max_size: int = 1 << 20,
        room: Guardroom | None = None,
        tls: ssl.SSLContext | None = None,
        on_crash: OnCrash | None = None,
        on_shortage: OnShortage = lambda reason: None,
    ) -> None:
        """`on_shortage` hears why no connection can be accepted, and None when one can again."""
        logging.getLogger("uvicorn.error").addFilter(_is_news)
        self._app = app
        self._stopping = False
        config = uvicorn.Config(
            self._run,
            interface="asgi3",
            http=GuardedHttp,
            ws="websockets-sansio" if ws else "none",
            ws_max_size=ws_max_size,
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
        self._server = _QuietServer(config)
        self._tasks = TaskOwner(on_crash)
        self._server.accepting = Accepting(
            listener,
            room or Guardroom(Caps()),
            self._server.protocol,
            tls=tls,
            on_crash=on_crash,
            on_shortage=on_shortage,
        )

    async def start(self) -> None:
        """Return once connections are accepted."""
        task = self._tasks.start(self._server.serve(), "http_server")
        while not self._server.started:
            if task.done():
                task.result()
                raise RuntimeError("the HTTP server ended while it was starting")
            await asyncio.sleep(0.001)

    def close_listener(self) -> None:
        """Accept no more connections; those that are open are served on."""
        self._server.accepting.close()

    async def stop(self, grace_s: float = _GRACE_S) -> None:
        """Accept nothing more, let requests under way finish for so long, cut off the rest, and return.

        Connections without a request are closed at once. A client that has not sent its whole request, or
        does not read its answer, is cut off at the end of the grace period.
        """
        self._stopping = True
        self.close_listener()
        self._server.should_exit = True
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
        # One turn of the loop later the requests know that their clients have gone.
        asyncio.get_running_loop().call_later(_CUT_S, self._cancel_requests)

    def _cancel_requests(self) -> None:
        for task in list(self._server.server_state.tasks):
            task.cancel()

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app. A request that is cut off while the server stops is no error."""
        transport = getattr(getattr(send, "__self__", None), "transport", None)
        scope[_GUARD] = getattr(transport, "guard", None)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self._stopping:
                raise


def bind_tcp(host: str, port: int) -> socket.socket:
    """Bind a listening TCP socket; port 0 takes a free one. `ExitWith` 73 says what is in the way."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(f"{host}:{port}", error) from error
    listener.setblocking(False)
    return listener


def bind_unix(path: Path) -> socket.socket:
    """Bind a unix socket (0600), replacing one that nobody answers on. `ExitWith` 73 otherwise.

    The caller holds the daemon's lock, so a dead socket found here is nobody's. A file that is
    not a socket is never removed.
    """
    if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT:
        raise ExitWith(
            CANNOT_CREATE,
            "socket_path_too_long",
            f"{path} is longer than the {_SOCKET_PATH_LIMIT} bytes a socket path may have: "
            "set CLAUDEMESH_HOME to a shorter directory",
        )
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(str(path), error) from error
    finally:
        os.umask(previous)
    listener.setblocking(False)
    return listener


def _cannot_listen(place: str, error: OSError) -> ExitWith:
    """Say why: what is wrong with this machine may be over at the next try, an address in use may not."""
    cause = local_cause(error)
    if cause is not None and cause.exit_code == TEMPORARY:
        return cannot("listen on", error, place)
    return ExitWith(CANNOT_CREATE, "cannot_listen", f"cannot listen on {place}: {explain(error)}")


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ExitWith(CANNOT_CREATE, "not_a_socket", f"{path} is not a socket: move it away, then try again")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise ExitWith(CANNOT_CREATE, "cannot_listen", f"{path} does not answer: {error}") from error
    raise ExitWith(CANNOT_CREATE, "already_running", f"somebody else answers on {path}")


async def read_body(receive: Receive, limit: int) -> bytes:
    """Read a request's whole body. `BodyTooLarge` as soon as it passes `limit` bytes."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and message["type"] == "http.request":
        if len(body) > limit:
            raise BodyTooLarge
        return body
    parts = [body]
    size = len(body)
    while message.get("more_body", False) or message["type"] != "http.request":
        if message["type"] == "http.disconnect":
            raise ClientGone
        if size > limit:
            raise BodyTooLarge
        message = await receive()
        part: bytes = message.get("body", b"")
        size += len(part)
        parts.append(part)
    if size > limit:
        raise BodyTooLarge
    return b"".join(parts)


_JSON_HEADERS = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]


async def send_json(
    send: Send, status: int, body: Mapping[str, Any], headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Answer with JSON that nothing on the way keeps."""
    raw = orjson.dumps(body)
    length = (b"content-length", str(len(raw)).encode())
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*_JSON_HEADERS, length, *(headers or [])],
        }
    )
    await send({"type": "http.response.body", "body": raw})
