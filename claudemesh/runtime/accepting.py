"""Accept loop of a listener: a few connections per turn of the event loop, none without descriptors."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

from claudemesh.runtime.guarded import Guard, Guardroom, MakeProtocol
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.oserrors import explain
from claudemesh.runtime.services import OnCrash, TaskOwner

log = get_logger("accepting")

# Connections per turn of the event loop: four that are admitted, or sixteen that are refused. More would
# delay the open connections. Fewer refusals would delay the connections in the backlog behind them.
_PER_TURN = 16
_COST = 4
_AGAIN_S = 0.5
_TLS_HANDSHAKE_S = 10.0
_SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# The connection was closed before it was accepted.
_GONE = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ECONNRESET})

OnShortage = Callable[[str | None], None]


class Accepting:
    """Accepts the connections of one listening socket and puts each under guard.

    While descriptors or memory are short it accepts nothing and tries again twice a second. `on_shortage`
    gets the reason, and None when the shortage is over.
    """

    def __init__(
        self,
        listener: socket.socket,
        room: Guardroom,
        make: MakeProtocol,
        *,
        tls: ssl.SSLContext | None = None,
        on_crash: OnCrash | None = None,
        on_shortage: OnShortage = lambda reason: None,
    ) -> None:
        self._listener = listener
        self._room = room
        self._make = make
        self._tls = tls
        self._on_shortage = on_shortage
        self._tasks = TaskOwner(on_crash)
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        self._is_closed = self._is_short = False

    def start(self) -> None:
        """Start to accept."""
        self._loop.add_reader(self._listener.fileno(), self._ready)

    def close(self) -> None:
        """Stop accepting. Connections that were accepted stay open."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._again is not None:
            self._again.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        self._room.episodes.close()

    async def wait_closed(self) -> None:
        """Return when no connection is being set up."""
        await self._tasks.stop()

    def _ready(self) -> None:
        left = _PER_TURN
        while left > 0:
            left -= 1
            try:
                link, address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _GONE:
                    continue
                self._pause(error)
                return
            self._end_shortage()
            if self._welcome(link, address):
                left -= _COST - 1

    def _welcome(self, link: socket.socket, name: object) -> bool:
        """Admit a connection or refuse it. Return whether it was admitted."""
        host = name[0] if isinstance(name, tuple) else "unix"
        address = self._room.address_of(host)
        if self._room.refuses(address):
            link.close()
            return False
        guard = Guard(self._room, self._make, host, address)
        self._room.enter(guard)
        link.setblocking(False)
        if link.family != socket.AF_UNIX:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        guard.give_up = self._tasks.start(self._connect(link, guard), "accepted").cancel
        return True

    async def _connect(self, link: socket.socket, guard: Guard) -> None:
        limit_s = None if self._tls is None else _TLS_HANDSHAKE_S
        try:
            delay_s = self._room.delay_s(guard.address)
            if delay_s:
                await asyncio.sleep(delay_s)
            await self._loop.connect_accepted_socket(
                lambda: guard, link, ssl=self._tls, ssl_handshake_timeout=limit_s
            )
        except (OSError, EOFError, TimeoutError) as error:
            # A TLS error is an OSError: the peer does not speak TLS, or has closed the connection.
            log.debug("connection_not_made", error=repr(error))
            guard.room.crowd.leave(guard)
            link.close()
        except BaseException:
            guard.room.crowd.leave(guard)
            link.close()
            raise

    def _pause(self, error: OSError) -> None:
        """Stop reading the listener for a while. New connections wait in its backlog."""
        if error.errno not in _SHORT_OF:
            log.warning("accept_failed", error=repr(error))
        self._is_short = True
        self._room.episodes.note("descriptors", error=explain(error))
        self._on_shortage(f"No connections can be accepted, because {explain(error)}. They wait meanwhile.")
        self._loop.remove_reader(self._listener.fileno())
        self._again = self._loop.call_later(_AGAIN_S, self._try_again)

    def _try_again(self) -> None:
        self._again = None
        if not self._is_closed:
            self._loop.add_reader(self._listener.fileno(), self._ready)

    def _end_shortage(self) -> None:
        if self._is_short:
            self._is_short = False
            self._on_shortage(None)
