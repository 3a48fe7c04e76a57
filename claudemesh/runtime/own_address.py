"""Addresses of this machine that others dial, for a server that listens at a wildcard."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from claudemesh.runtime.urls import host_port, is_address

# Addresses for documentation, which no packet is sent to: the kernel only looks up the route. A server that
# listens at `::` is reached by IPv4 too.
_PROBES = {4: ("192.0.2.1",), 6: ("2001:db8::1", "192.0.2.1")}
_ANY_PORT = 9
# The routes of IPv4 on Linux: interface, destination and mask in the second and the eighth column.
_ROUTES = Path("/proc/net/route")
_COLUMNS = 8
_ONE_HOST = 0xFFFFFFFF


def dialled_urls(url: str, public_urls: Sequence[str]) -> tuple[str, ...]:
    """Return the URLs to dial a broker at, from the one it listens at: public ones, if there are any.

    A wildcard becomes the address from which this machine reaches others. It stays when there is none, and
    in several networks without a route out of them.
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
        address = _towards(probe)
        if address is not None:
            return address
    return _in_the_only_network()


def _towards(probe: str) -> str | None:
    """Return the address of this machine that an address would see; None without a route to it."""
    family = socket.AF_INET6 if ":" in probe else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as link:
        link.connect((probe, _ANY_PORT))
        address: str = link.getsockname()[0]
        return address
    return None


def _in_the_only_network() -> str | None:
    """Return the address in the network of a machine that has one, and no route out of it.

    None for several networks: nothing tells which of them the other hosts are in.
    """
    try:
        table = _ROUTES.read_text()
    except OSError:
        return None
    found = {_towards(probe) for probe in networks(table)} - {None}
    return found.pop() if len(found) == 1 else None


def networks(table: str) -> list[str]:
    """Return an address in each network of a table of routes, as /proc/net/route has it."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < _COLUMNS:
            continue
        destination, mask = (socket.ntohl(int(fields[column], 16)) for column in (1, 7))
        found.append(str(ipaddress.IPv4Address(destination + (mask != _ONE_HOST))))
    return found
