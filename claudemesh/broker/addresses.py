"""Addresses of a broker: known from its settings and its own sockets, never from what a request claims.

A hello and a join are signed for the `host:port` that was dialled. They count when that is a public URL of
the settings, or the local address at which the connection has arrived: by number, by the name of this machine
or of `listen`, or on the loopback as `localhost`. So a relay cannot pass on what was signed for itself.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from claudemesh.broker.settings import BrokerSettings
from claudemesh.protocol import ProtocolError
from claudemesh.protocol.errors import WRONG_ADDRESS
from claudemesh.protocol.signing import audience_of
from claudemesh.runtime.urls import bracketed, is_address
from claudemesh.runtime.web.asgi import Scope

Arrival: TypeAlias = tuple[str, int] | None
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Addresses:
    """The public URLs of a broker, and the names under which its own sockets are dialled."""

    public_urls: tuple[str, ...]
    names: frozenset[str]
    scheme: str

    def accepts(self, audience: str, arrived: Arrival) -> bool:
        """Whether what was signed for this `host:port` is meant for this broker."""
        public = (canonical(audience_of(url)) for url in self.public_urls)
        return canonical(audience) in {*public, *self._at(arrived)}

    def shown(self, arrived: Arrival) -> tuple[str, ...]:
        """Return the URLs to name to a client that dialled another one: the public ones, if there are any."""
        if self.public_urls or arrived is None:
            return self.public_urls
        return (f"{self.scheme}://{_joined(_plain(arrived[0]), arrived[1])}",)

    def check(self, audience: str, arrived: Arrival) -> None:
        """`ProtocolError` wrong_address, which names both, for what was signed for another address."""
        if self.accepts(audience, arrived):
            return
        known = ", ".join(self.shown(arrived)) or "no address"
        raise ProtocolError(
            WRONG_ADDRESS,
            f"{audience} was dialled, but this broker knows itself as {known}. Dial that address, or give "
            "the broker this one too with --public-url, which may be given several times.",
            dialled=audience,
            addresses=list(self.shown(arrived)),
        )

    def _at(self, arrived: Arrival) -> Iterable[str]:
        if arrived is None:
            return
        host, port = _plain(arrived[0]), arrived[1]
        hosts = {host, *self.names}
        if ipaddress.ip_address(host).is_loopback:
            hosts.update(_LOOPBACK)
        for one in hosts:
            yield _joined(one, port)


def addresses_of(settings: BrokerSettings, hostname: str | None = None) -> Addresses:
    """Return a broker's addresses by its settings and this machine's name."""
    host, _ = settings.address
    machine = (socket.gethostname() if hostname is None else hostname).lower()
    names = {machine, machine.partition(".")[0]}
    if not is_address(host):
        names.add(host.lower())
    scheme = "ws" if settings.tls_cert is None else "wss"
    return Addresses(settings.public_url, frozenset(names - {""}), scheme)


def arrival_of(scope: Scope) -> Arrival:
    """Return the local address of a request's connection, as the socket tells it."""
    server = scope.get("server")
    return None if server is None or server[1] is None else (str(server[0]), int(server[1]))


def canonical(audience: str) -> str:
    """Return a `host:port` in the one spelling that is compared."""
    host, _, port = audience.lower().rpartition(":")
    return f"{bracketed(_plain(host.removeprefix('[').removesuffix(']')))}:{port}"


def _plain(host: str) -> str:
    """Return a host without a zone, and an IPv4 address inside of an IPv6 one as itself."""
    host = host.partition("%")[0]
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def _joined(host: str, port: int) -> str:
    return f"{bracketed(host)}:{port}"
