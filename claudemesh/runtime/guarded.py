"""Guard of connections: the layer between a server's transports and the protocols of its libraries.

A listener has one `Guardroom`. It admits connections, and tracks which of them are authenticated. Each
connection has a `Guard`, which passes input on through a gate.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import struct
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TypeAlias, cast

from claudemesh.runtime.crowd import Caps, Crowd, address_key
from claudemesh.runtime.episodes import Episodes
from claudemesh.runtime.gate import MEMBER, STRANGER, Abuse, Gate
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.rate_limit import TokenBucket, TokenBuckets
from claudemesh.runtime.transport import JoinedWrites

log = get_logger("guard")

Count: TypeAlias = Callable[[str], None]
MakeProtocol: TypeAlias = Callable[[], asyncio.Protocol]

_POLICY_VIOLATION = 1008
_TOO_BIG = 1009
_MOST_PROXIES = 16
_LONGEST_FORWARDED = 1024
# Seconds in which a close frame must be sent.
_CUT_S = 1.0
_UNREAD_S = 30.0
_SIGN_IN_S = 10.0
# Requests of strangers: of one connection before they are counted, of one address, and of all.
_FREE_REQUESTS = 4
_REQUESTS_PER_S, _REQUESTS_BURST = 50.0, 200.0
_ALL_REQUESTS_PER_S, _ALL_REQUESTS_BURST = 500.0, 1000.0
# Strangers of one address that were closed for their input. Above it, new connections of that address are
# read with a delay. They are not refused, because members may have the same address.
_ABUSES_PER_S, _ABUSES_BURST = 4.0, 16.0
_LONGEST_DELAY_S = 1.0


class Guardroom:
    """The rules of one listener, and its connections."""

    def __init__(
        self,
        caps: Caps,
        *,
        count: Count = lambda limit: None,
        trusted: Sequence[str] = (),
        is_private: bool = False,
        unread_s: float = _UNREAD_S,
        sign_in_s: float = _SIGN_IN_S,
    ) -> None:
        """`count` counts each limit that is reached; `trusted` are proxies that name their clients.

        In a private room every connection counts as authenticated, by the mode of the socket's file.

        A stranger that does not read its answer for `unread_s` seconds is closed, and so is a WebSocket that
        has not signed in after `sign_in_s` seconds. A broker closes the latter earlier, with a reason.
        """
        self.crowd: Crowd[Guard] = Crowd(caps)
        self.episodes = Episodes(log, count)
        self._trusted = [ipaddress.ip_network(network, strict=False) for network in trusted]
        self._unnamed = itertools.count(1)
        self._is_private = is_private
        self.unread_s = unread_s
        self.sign_in_s = sign_in_s
        self._requests = TokenBuckets(_REQUESTS_PER_S, _REQUESTS_BURST)
        self._abuses = TokenBuckets(_ABUSES_PER_S, _ABUSES_BURST)
        self._all_requests = TokenBucket(_ALL_REQUESTS_PER_S, _ALL_REQUESTS_BURST)

    def trusts(self, host: str) -> bool:
        """Return whether a host is a trusted proxy, which names its clients."""
        if not self._trusted:
            return False
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)

    def address_of(self, host: str) -> str:
        """Return the key under which a connection is counted. One from a proxy has its own key until its
        head is read."""
        return f"proxied-{next(self._unnamed)}" if self.trusts(host) else address_key(host)

    @property
    def has_room(self) -> bool:
        """Whether there are fewer members than the limit."""
        return self.crowd.members < self.crowd.caps.members

    def refuses(self, address: str) -> bool:
        """Whether a new connection is refused. Checked before anything is created for it."""
        limit: str | None
        if self._is_private:
            limit = None if self.has_room else "connections"
        else:
            limit = self.crowd.refusal(address, asyncio.get_running_loop().time())
        if limit is not None:
            self.note(limit, address)
        return limit is not None

    def enter(self, guard: Guard) -> None:
        """Take in a new connection that is not refused."""
        verdict = self.crowd.enter(guard, guard.address, asyncio.get_running_loop().time())
        if verdict.limit is not None:
            self.note(verdict.limit, guard.address)
        if verdict.leaves is not None:
            verdict.leaves.drop()
        if self._is_private:
            guard.admit()

    def move(self, guard: Guard, address: str) -> None:
        """Count a connection under the address that its proxy names."""
        verdict = self.crowd.move(guard, address, asyncio.get_running_loop().time())
        guard.address = address
        if verdict.limit is not None:
            self.note(verdict.limit, address)
        if verdict.leaves is not None:
            verdict.leaves.drop()
        if verdict.refused:
            guard.drop()

    def note(self, limit: str, address: str) -> None:
        """Count a limit that was reached."""
        self.episodes.note(limit, address=address)

    def request_wait_s(self, address: str) -> float:
        """Count a stranger's request; return the seconds for which its connection is not read."""
        now = asyncio.get_running_loop().time()
        return max(self._requests.of(address).spend(1, now), self._all_requests.spend(1, now))

    def abused(self, address: str) -> None:
        """Count a stranger's connection that was closed for its input."""
        bucket, now = self._abuses.of(address), asyncio.get_running_loop().time()
        if bucket.spend(0, now) < _LONGEST_DELAY_S:
            bucket.spend(1, now)

    def delay_s(self, address: str) -> float:
        """Return the seconds before a new connection of an address is read."""
        if not self._abuses:
            return 0.0
        return self._abuses.of(address).spend(0, asyncio.get_running_loop().time())


def _nothing() -> None:
    pass


class GatedTransport(JoinedWrites):
    """Transport of a protocol behind a gate. The gate starts and stops reading."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, gate: Gate) -> None:
        super().__init__(transport, loop)
        self._gate = gate

    def pause_reading(self) -> None:
        """Stop passing on input."""
        self._gate.hold(True)

    def resume_reading(self) -> None:
        """Pass on input again."""
        self._gate.hold(False)


class GuardedTransport(GatedTransport):
    """Transport of a protocol under guard. The guard also changes the protocol."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, guard: Guard) -> None:
        super().__init__(transport, loop, guard.gate)
        self.guard = guard

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Replace HTTP by the WebSocket protocol, the only change that happens."""
        self.guard.upgrade(cast(asyncio.Protocol, protocol))


class Guard(asyncio.Protocol):
    """One connection under guard, from its acceptance to its end."""

    def __init__(self, room: Guardroom, make: MakeProtocol, host: str, address: str) -> None:
        """`host` is the peer; `address` is the key under which it is counted."""
        self.room = room
        self.address = address
        self._host = host
        # Without a transport yet, the accept loop closes the connection.
        self.give_up: Callable[[], object] = _nothing
        self._make = make
        self._inner: asyncio.Protocol | None = None
        self._transport: GuardedTransport | None = None
        self._is_member = self._is_socket = False
        self._free_requests = _FREE_REQUESTS
        # Bytes by which a body has to grow within its deadline to get another one; None for no other one.
        self.body_floor: int | None = None
        self._cut: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._sign_in: asyncio.TimerHandle | None = None
        self.gate = Gate(self._too_early, self._read, self._abused, asyncio.get_running_loop(), self._slowed)

    @property
    def protocol(self) -> asyncio.Protocol | None:
        """The protocol that input is passed on to."""
        return self._inner

    @property
    def is_proxied(self) -> bool:
        """Whether a trusted proxy is at the other end. It may send requests of many clients here."""
        return self.room.trusts(self._host)

    def admit(self) -> None:
        """Note that the peer is authenticated."""
        if not self._is_member:
            self._is_member = True
            self._forget_sign_in()
            self.room.crowd.admit(self)
            self.gate.pace(MEMBER)

    @contextmanager
    def carrying(self, floor: int) -> Generator[None]:
        """Let one authenticated request have a long body: read fast, and without an end while it grows.

        `floor` is the number of bytes by which it has to grow within the deadline of a body. The connection
        stays a stranger afterwards: behind a proxy it may carry other clients.
        """
        self.body_floor = floor
        self.gate.widen(True)
        if not self._is_member:
            self.gate.pace(MEMBER)
        try:
            yield
        finally:
            self.body_floor = None
            self.gate.widen(False)
            if not self._is_member:
                self.gate.pace(STRANGER)

    def upgrade(self, protocol: asyncio.Protocol) -> None:
        """Pass the following input on to a WebSocket protocol."""
        self._inner = protocol
        self._is_socket = True
        if not self._is_member:
            self._sign_in = asyncio.get_running_loop().call_later(self.room.sign_in_s, self._not_signed_in)
        self.gate.deliver_to(protocol.data_received)
        self.gate.expect_frames()

    def requested(self) -> None:
        """Count a request. A connection whose address sends too many is read with a delay."""
        if self._is_member:
            return
        if self._free_requests:
            self._free_requests -= 1
            return
        wait_s = self.room.request_wait_s(self.address)
        if wait_s:
            self.room.note("requests", self.address)
            self.gate.owe(wait_s)

    def asks_for(self, forwarded: str) -> None:
        """Take the client's address from a trusted proxy: the last one that is not a trusted proxy itself."""
        if not self.is_proxied:
            return
        client = client_of(forwarded, self.room.trusts)
        if client is not None:
            self.room.move(self, address_key(client))

    def note(self, limit: str) -> None:
        """Count a limit that this connection has reached and for which it ends."""
        self.room.note(limit, self.address)
        if not self._is_member:
            self.room.abused(self.address)

    def drop(self) -> None:
        """Close the connection at once."""
        self.gate.shut()
        if self._transport is None:
            self.give_up()
        else:
            self._transport.abort()

    # The protocol that the transport sees

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass the connection to the library."""
        loop = asyncio.get_running_loop()
        self._transport = GuardedTransport(cast(asyncio.Transport, transport), loop, self)
        # It would keep the task that has made the connection.
        self.give_up = _nothing
        self._inner = self._make()
        self.gate.deliver_to(self._inner.data_received)
        self._inner.connection_made(self._transport)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on the remaining input of a member, then the loss of the connection."""
        self.room.crowd.leave(self)
        if self._is_socket and not self._is_member:
            # A handshake is the most expensive request that a stranger can make.
            self.room.abused(self.address)
        if self._cut is not None:
            self._cut.cancel()
        self._forget_unread()
        self._forget_sign_in()
        if self._is_member:
            self.gate.drain()
        else:
            self.gate.shut()
        assert self._inner is not None
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass input on, in steps."""
        self.gate.received(data)

    def eof_received(self) -> bool | None:
        """The peer has closed its side. Waiting input is passed on when the transport has closed."""
        assert self._inner is not None
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Pause the writer: the write buffer is full."""
        assert self._inner is not None
        if not self._is_member:
            self._unread = asyncio.get_running_loop().call_later(self.room.unread_s, self._not_read)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Resume the writer."""
        assert self._inner is not None
        self._forget_unread()
        self._inner.resume_writing()

    def _too_early(self, data: bytes) -> None:
        raise RuntimeError("input came before its connection")

    def _read(self, reads: bool) -> None:
        assert self._transport is not None
        transport = self._transport.below
        if not transport.is_closing():
            if reads:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def _not_read(self) -> None:
        self._unread = None
        if not self._is_member:
            self.note("unread")
            self.drop()

    def _not_signed_in(self) -> None:
        self._sign_in = None
        self.note("sign_in_deadline")
        self.drop()

    def _forget_sign_in(self) -> None:
        if self._sign_in is not None:
            self._sign_in.cancel()
            self._sign_in = None

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _slowed(self) -> None:
        self.room.note("pace", self.address)

    def _abused(self, abuse: Abuse) -> None:
        self.note(abuse)
        assert self._transport is not None
        if self._is_socket:
            code = _TOO_BIG if abuse == "bytes" else _POLICY_VIOLATION
            self._transport.write(close_frame(code, f"too many {abuse}"))
        self._transport.close()
        self._cut = asyncio.get_running_loop().call_later(_CUT_S, self._transport.abort)


def client_of(forwarded: str, trusts: Callable[[str], bool]) -> str | None:
    """Return the last address in an X-Forwarded-For that is not a trusted proxy. Those before it may be
    forged.

    None when there is none among the last 16 addresses.
    """
    for part in reversed(forwarded[-_LONGEST_FORWARDED:].split(",")[-_MOST_PROXIES:]):
        host = part.strip()
        if not trusts(host):
            return host
    return None


def close_frame(code: int, reason: str) -> bytes:
    """Return a server's WebSocket close frame."""
    payload = struct.pack("!H", code) + reason.encode()
    return bytes((0x88, len(payload))) + payload
