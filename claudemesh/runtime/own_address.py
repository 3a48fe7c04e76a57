"""Addresses of this machine that others dial, for a server that listens at a wildcard."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from claudemesh.runtime.urls import host_port, is_address

# Addresses for documentation, which no packet is sent to: the kernel only looks up the route. A server that
# listens at `::` is reached by IPv4 too.
_PROBES = {4: ("192.0.2.1",), 6: ("2001:db8::1", "192.0.2.1")}
_ANY_PORT = 9


def dialled_urls(url: str, public_urls: Sequence[str]) -> tuple[str, ...]:
    """Return the URLs to dial a broker at, from the one it listens at: public ones, if there are any.

    A wildcard becomes the address from which this machine reaches others; it stays when there is none.
    """
    if public_urls:
        return tuple(public_urls)
    parts = urlsplit(url)
    outward = _outward(parts.hostname or "")
    return (url,) if outward is None else (f"{parts.scheme}://{host_port(outward, parts.port or 0)}",)


def _outward(host: str) -> str | None:
    """Return the address of this machine for a wildcard, None for another host and without a route."""
    if not is_address(host) or not ipaddress.ip_address(host).is_unspecified:
        return None
    for probe in _PROBES[ipaddress.ip_address(host).version]:
        family = socket.AF_INET6 if ":" in probe else socket.AF_INET
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as link:
            link.connect((probe, _ANY_PORT))
            address: str = link.getsockname()[0]
            return address
    return None
