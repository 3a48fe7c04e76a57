"""Admission of connections, and eviction of strangers: connections that are not authenticated."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

C = TypeVar("C")

Limit: TypeAlias = Literal["connections", "strangers", "strangers_per_address"]

_IPV6_PREFIX = 64


@dataclass(frozen=True, slots=True)
class Caps:
    """Bounds of a listener. A connection counts as a stranger until it is authenticated."""

    members: int = 10_000
    strangers: int = 512
    strangers_per_address: int = 128
    settle_s: float = 1.0  # seconds before a stranger may be evicted for another one of its address

    def fitted(self, descriptors: int) -> Caps:
        """Return caps for which this many descriptors are enough. Strangers get at most a quarter of them."""
        strangers = max(1, min(self.strangers, descriptors // 4))
        return Caps(
            max(1, min(self.members, descriptors - strangers)),
            strangers,
            max(1, min(self.strangers_per_address, strangers // 4)),
            self.settle_s,
        )


@dataclass(frozen=True, slots=True)
class Admission(Generic[C]):
    """Decision on a new connection: it is admitted, perhaps by evicting another one, or it is refused."""

    refused: bool = False
    leaves: C | None = None
    limit: Limit | None = None


class Crowd(Generic[C]):
    """Bookkeeping of the connections of one listener. It closes nothing itself.

    A stranger never takes the place of a member. When there are too many strangers, the oldest one of the
    address with the most is evicted, so that an address that floods evicts only its own connections.
    """

    def __init__(self, caps: Caps) -> None:
        self.caps = caps
        self._strangers: dict[str, dict[C, float]] = {}
        self._address: dict[C, str] = {}
        self._members: set[C] = set()

    @property
    def strangers(self) -> int:
        """Return the number of connections that are not authenticated."""
        return len(self._address)

    @property
    def members(self) -> int:
        """Return the number of connections that are authenticated."""
        return len(self._members)

    def of(self, address: str) -> int:
        """Return the number of strangers of an address."""
        return len(self._strangers.get(address, ()))

    def refusal(self, address: str, now: float) -> Limit | None:
        """Return the limit for which a new connection would be refused, None when it would be admitted."""
        verdict = self._verdict(address, now)
        return verdict.limit if verdict.refused else None

    def enter(self, connection: C, address: str, now: float) -> Admission[C]:
        """Admit a new connection as a stranger, or refuse it."""
        verdict = self._verdict(address, now)
        if not verdict.refused:
            if verdict.leaves is not None:
                self.leave(verdict.leaves)
            self._strangers.setdefault(address, {})[connection] = now
            self._address[connection] = address
        return verdict

    def move(self, connection: C, address: str, now: float) -> Admission[C]:
        """Count a stranger under the address that its proxy names. If that is refused, the stranger is
        removed."""
        if self._address.get(connection) in (None, address):
            return Admission()
        self.leave(connection)
        return self.enter(connection, address, now)

    def admit(self, connection: C) -> None:
        """Note that a stranger is authenticated."""
        if connection in self._address:
            self._forget(connection)
            self._members.add(connection)

    def leave(self, connection: C) -> None:
        """Remove a connection. An unknown one is ignored."""
        if connection in self._address:
            self._forget(connection)
        else:
            self._members.discard(connection)

    def _verdict(self, address: str, now: float) -> Admission[C]:
        caps, own = self.caps, self.of(address)
        if own >= caps.strangers_per_address:
            return self._give_way(address, now, "strangers_per_address")
        if len(self._address) < caps.strangers:
            return Admission()
        largest = max(self._strangers, key=self.of)
        if self.of(largest) > own + 1:
            return Admission(leaves=next(iter(self._strangers[largest])), limit="strangers")
        return self._give_way(largest, now, "strangers")

    def _give_way(self, address: str, now: float, limit: Limit) -> Admission[C]:
        """Evict the oldest stranger of an address, unless it is younger than `settle_s`."""
        oldest, since = next(iter(self._strangers[address].items()))
        if now - since < self.caps.settle_s:
            return Admission(refused=True, limit=limit)
        return Admission(leaves=oldest, limit=limit)

    def _forget(self, connection: C) -> None:
        address = self._address.pop(connection)
        fellows = self._strangers[address]
        del fellows[connection]
        if not fellows:
            del self._strangers[address]


def address_key(host: str) -> str:
    """Return the key under which an address is counted: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
