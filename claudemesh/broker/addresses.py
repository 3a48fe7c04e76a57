"""Addresses of a broker, from its settings and its own sockets and never from a request.

A hello and a join are signed for the dialled `host:port`. They are valid when that is a public URL of the
settings, or the local address of the connection: by number, by the name of this host or of `listen`, or on
the loopback as `localhost`. So a relay cannot replay what was signed for itself.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import TypeAlias

from msgspec import Struct

from claudemesh.broker.settings import BrokerSettings
from claudemesh.protocol.errors import WRONG_ADDRESS, ProtocolError
from claudemesh.runtime.urls import (
    audience_of,
    canonical_audience,
    canonical_host,
    host_port,
    is_address,
    is_loopback,
)
from claudemesh.runtime.web.asgi import Scope

Arrival: TypeAlias = tuple[str, int] | None
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Addresses(Struct, frozen=True):
    """The public URLs of a broker, and the names under which its own sockets are dialled."""

    public_urls: tuple[str, ...]
    names: frozenset[str]
    scheme: str

    def accepts(self, audience: str, arrived: Arrival) -> bool:
        """Whether what was signed for this `host:port` is meant for this broker."""
        public = (canonical_audience(audience_of(url)) for url in self.public_urls)
        return canonical_audience(audience) in {*public, *self._at(arrived)}

    def shown(self, arrived: Arrival) -> tuple[str, ...]:
        """Return the URLs for a client that dialled another one: the public ones, if there are any."""
        if self.public_urls or arrived is None:
            return self.public_urls
        return (f"{self.scheme}://{host_port(canonical_host(arrived[0]), arrived[1])}",)

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
        host, port = canonical_host(arrived[0]), arrived[1]
        hosts = {host, *self.names}
        if is_loopback(host):
            hosts.update(_LOOPBACK)
        for one in hosts:
            yield host_port(one, port)


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
