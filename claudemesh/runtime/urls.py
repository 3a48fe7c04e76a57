"""Hosts in URLs and sockets: loopback or not, address or name, and IPv6 in brackets."""

from __future__ import annotations

import ipaddress


def is_address(host: str) -> bool:
    """Whether a host is an IPv4 or IPv6 address, without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host is `localhost` or an address of the loopback, so that it is this machine."""
    if host.lower() == "localhost":
        return True
    return is_address(host) and ipaddress.ip_address(host).is_loopback


def bracketed(host: str) -> str:
    """Return a host as it stands in a URL before the port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
