"""Listeners of the local API: always the unix socket, and loopback TCP for clients with the token.

Each listener has a server, guards and limits of its own, so that load on the loopback leaves the socket
usable.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from claudemesh.daemon.api import ApiRoutes, build_api
from claudemesh.daemon.api.access import AccessControl, AccessRules
from claudemesh.daemon.api.app import TABLE
from claudemesh.daemon.api.hook_auth import HookAccess
from claudemesh.daemon.live_config import LiveConfig
from claudemesh.daemon.metrics import DaemonMetrics
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.home.environment import detect_environment
from claudemesh.home.paths import DaemonPaths
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.console.admission import Admission
from claudemesh.runtime.crowd import Caps
from claudemesh.runtime.descriptors import raise_descriptors
from claudemesh.runtime.exits import PERMISSION, ExitWith
from claudemesh.runtime.files import UnsafeFile, read_private, remove, write_atomic
from claudemesh.runtime.guarded import Guardroom
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.oserrors import explain
from claudemesh.runtime.rate_limit import TokenBucket
from claudemesh.runtime.web.request_metrics import RequestMetrics
from claudemesh.runtime.web.server import HttpServer
from claudemesh.runtime.web.sockets import bind_tcp, bind_unix

log = get_logger("listeners")

TOKEN_BYTES = 32
_PER_S = 100.0
_BURST = 1000.0
# A connection that has not shown the bearer token is closed in favour of a newer one.
_LOOPBACK = Caps(members=256, strangers=64, strangers_per_address=64, settle_s=0.1)
_SOCKET = Caps(members=1024, strangers=1024, strangers_per_address=1024)
# File descriptors for both listeners at their limits, hooks, databases and the link.
_DESCRIPTORS = 2048
_CLOSED = "loopback_closed"
_AGAIN_S = 2.0
_FIRST_PORT, _LAST_PORT = 1024, 65_535


class ApiListeners:
    """Opens and closes the API's listeners, and keeps their rules in step with the settings."""

    def __init__(
        self,
        paths: DaemonPaths,
        routes: ApiRoutes,
        config: LiveConfig,
        metrics: DaemonMetrics,
        hooks: HookAccess,
        write: Callable[[str, Callable[[], None]], bool],
        conditions: Conditions,
        console: Admission,
    ) -> None:
        """`write` runs the function that writes a side file, now or as soon as the disk allows it."""
        self._write = write
        self._conditions = conditions
        self._console = console
        self._paths = paths
        self._hooks = hooks
        self._routes = routes
        self._config = config
        self._metrics = metrics
        self._servers: list[HttpServer] = []
        self._socket: AccessControl | None = None
        self._owns_socket = self._closing = False
        self._loopback: AccessControl | None = None
        self._token = b""
        self._old_token: bytes | None = None
        self._forget: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Listen on the socket, and on loopback if configured. Raise `ExitWith` with the cause of a
        failure."""
        settings = self._config.settings
        raise_descriptors(_DESCRIPTORS)
        try:
            if self._wants_tcp(settings):
                await self._try_loopback(settings)
            else:
                remove(self._paths.http_port)
            # Last: an answer on the socket shows that the start has succeeded.
            self._socket = build_api(self._routes, _rules(settings), hooks=self._hooks)
            listener = bind_unix(self._paths.sock)
            self._owns_socket = True
            room = Guardroom(_SOCKET, count=self._count("unix"), is_private=True)
            await self._serve(HttpServer(self._measured(self._socket, "unix"), listener, room=room))
        except BaseException:
            await self.close()
            raise

    def close_listeners(self) -> None:
        """Accept no more connections; requests on those that are open are answered."""
        self._closing = True
        for server in self._servers:
            server.close_listener()

    async def close(self) -> None:
        """Take no more requests, finish the running ones, and remove the files that name the listeners."""
        self._closing = True
        if self._forget is not None:
            self._forget.cancel()
        await asyncio.gather(*(server.stop() for server in self._servers))
        if self._owns_socket:
            remove(self._paths.sock)
        remove(self._paths.http_port)

    def prepare(self, settings: DaemonSettings) -> Callable[[], None]:
        """Return the commit of other settings, and of a rotated token.

        Raise `ExitWith` 77 when others could read the token. The previous token is valid for `old_token_s`
        seconds more.
        """
        token = b"" if self._loopback is None else load_token(self._paths)
        return partial(self._commit, settings, token)

    def _commit(self, settings: DaemonSettings, token: bytes) -> None:
        if self._socket is not None:
            self._socket.put_in_force(_rules(settings))
        if self._loopback is None or not token:
            return
        if self._token and token != self._token:
            self._old_token = self._token
            self._metrics.token_rotated()
            log.info("local_token_rotated", old_works_for_s=settings.old_token_s)
            if self._forget is not None:
                self._forget.cancel()
            loop = asyncio.get_running_loop()
            self._forget = loop.call_later(settings.old_token_s, self._forget_old_token)
            self._console.rotated(token)
        self._token = token
        tokens = (token,) if self._old_token is None else (token, self._old_token)
        self._loopback.put_in_force(self._loopback_rules(settings, *tokens))

    def _forget_old_token(self) -> None:
        self._old_token = None
        if self._loopback is not None:
            self._loopback.put_in_force(self._loopback_rules(self._config.settings, self._token))

    async def run(self) -> None:
        """Open the loopback later if it could not be opened at the start; return when it is open."""
        while self._conditions.holds(_CLOSED) and not self._closing:
            await asyncio.sleep(_AGAIN_S)
            await self._try_loopback(self._config.settings)

    async def _try_loopback(self, settings: DaemonSettings) -> None:
        """Open the loopback. If that fails, the socket still answers."""
        try:
            await self._open_loopback(settings)
        except OSError as error:
            self._conditions.begin(
                _CLOSED,
                f"The loopback API is closed, because {self._paths.local_token} cannot be written "
                f"({explain(error)}). The socket {self._paths.sock} answers; the loopback opens by itself.",
            )
        else:
            self._conditions.end(_CLOSED)

    async def _open_loopback(self, settings: DaemonSettings) -> None:
        # Load the token before listening: TCP is never served unauthenticated.
        self._token = load_token(self._paths)
        known = _last_port(self._paths.last_port)
        listener = _bind(settings.http_bind, settings.http_port, known)
        port: int = listener.getsockname()[1]
        rate_limit = TokenBucket(_PER_S, _BURST)
        rules = self._loopback_rules(settings, self._token)
        self._loopback = build_api(self._routes, rules, rate_limit=rate_limit)
        app = self._measured(self._loopback, "tcp")
        room = Guardroom(_LOOPBACK, count=self._count("tcp"))
        await self._serve(HttpServer(app, listener, room=room))
        self._console.opened(port, self._token)
        path = self._paths.http_port
        self._write(path.name, lambda: write_atomic(path, f"{port}\n".encode()))
        if port != known:
            last = self._paths.last_port
            self._write(last.name, lambda: write_atomic(last, f"{port}\n".encode()))
        log.info("tcp_open", bind=settings.http_bind, port=port)

    def _loopback_rules(self, settings: DaemonSettings, *tokens: bytes) -> AccessRules:
        return replace(
            _rules(settings),
            tokens=tokens,
            closed_paths=TABLE.socket_only,
            browser_paths=TABLE.for_browsers,
            is_session=self._console.is_session,
        )

    def _count(self, transport: str) -> Callable[[str], None]:
        return partial(self._metrics.limit_reached, transport)

    def _measured(self, access: AccessControl, transport: str) -> RequestMetrics:
        return RequestMetrics(access, self._metrics, transport, TABLE)

    async def _serve(self, server: HttpServer) -> None:
        await server.start()
        self._servers.append(server)

    def _wants_tcp(self, settings: DaemonSettings) -> bool:
        place = detect_environment(os.environ)
        if settings.tcp_enabled is None:
            return place == "machine"
        if settings.tcp_enabled and place != "machine":
            log.warning("tcp_less_safe_here", place=place)
        return settings.tcp_enabled


def _bind(host: str, port: int, known: int) -> socket.socket:
    """Bind the configured port. For 0, bind the port of the last start, so that a page that is open finds the
    daemon again, or a free one if another program has that port now."""
    if port == 0 and known:
        with suppress(ExitWith):
            return bind_tcp(host, known)
    return bind_tcp(host, port, "http_port of [ipc] in config.toml")


def _last_port(path: Path) -> int:
    """Return the port of the last start, 0 if it is not known."""
    with suppress(OSError, ValueError, UnsafeFile):
        port = int(read_private(path))
        return port if _FIRST_PORT <= port <= _LAST_PORT else 0
    return 0


def _rules(settings: DaemonSettings) -> AccessRules:
    origins = frozenset(origin.encode() for origin in settings.allowed_origins)
    public = TABLE.public if settings.public_health_check else frozenset()
    return AccessRules(origins, public_paths=public)


def load_token(paths: DaemonPaths) -> bytes:
    """Return the loopback token, which the first start creates. Raise `ExitWith` 77 when others could read
    it."""
    try:
        token = read_private(paths.local_token).strip()
    except FileNotFoundError:
        return write_token(paths)
    except UnsafeFile as error:
        raise ExitWith(PERMISSION, "unsafe_file", f"{error}.") from error
    return token or write_token(paths)


def write_token(paths: DaemonPaths) -> bytes:
    """Replace the token by a new one, atomically, and return it."""
    token = base64.urlsafe_b64encode(secrets.token_bytes(TOKEN_BYTES)).rstrip(b"=")
    write_atomic(paths.local_token, token + b"\n")
    return token
