"""Web pages are kept out: a browser on a broker's network would reach what only members should.

A page of another origin names it in a header. A page whose own name was pointed at the broker (DNS rebinding)
does not, but asks for a host that is not the broker's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from claudemesh.broker.settings import BrokerSettings
from claudemesh.protocol import ProtocolError

_OWN = frozenset({b"none", b"same-origin"})


class PageGuard:
    """Judges the head of an HTTP request before anything else does."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._is_local = _is_local(settings)

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """`ProtocolError` 403 for a request that a web page made."""
        hosts = []
        for name, value in headers:
            if name == b"origin" or (name == b"sec-fetch-site" and value not in _OWN):
                raise ProtocolError("origin_not_allowed", "web pages may not ask a broker")
            if name == b"host":
                hosts.append(value.decode("latin-1"))
        if self._is_local and not (len(hosts) == 1 and _is_own(hosts[0])):
            raise ProtocolError(
                "host_not_allowed",
                "this broker listens on the loopback and answers under its address or localhost: "
                "behind a proxy start it with --public-url",
            )


def _is_local(settings: BrokerSettings) -> bool:
    """Whether the broker is dialled on this machine alone: by an address, or as localhost.

    Elsewhere a host may have any name, and a proxy may put one of its own in the header.
    """
    name = settings.address[0].lower()
    is_loopback = name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)
    return is_loopback and not settings.public_url


def _is_own(host: str) -> bool:
    try:
        parts = urlsplit(f"//{host}")
        # Looked at for its error: a port that is none.
        _ = parts.port
    except ValueError:
        return False
    name = parts.hostname or ""
    return parts.netloc == host and parts.username is None and (name == "localhost" or _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
