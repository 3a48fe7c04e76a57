"""Hosts and addresses in URLs: loopback, IPv6 in brackets, and the `host:port` of a broker.

A hello and a join are signed for the audience: the `host:port` that was dialled (docs/spec/protocol.md,
Handshake).
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

# A path prefix of a broker behind a proxy, such as /mesh.
_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?")
_DEFAULT_PORTS = {"ws": 80, "http": 80, "wss": 443, "https": 443}


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


def host_port(host: str, port: int | str) -> str:
    """Return `host:port`, an IPv6 address in brackets."""
    return f"{bracketed(host)}:{port}"


def split_host_port(text: str) -> tuple[str, str]:
    """Return host and port of `host:port`, without brackets; "" for a part that is missing."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


def canonical_host(host: str) -> str:
    """Return a host without a zone; an IPv4 address within an IPv6 address becomes the IPv4 address."""
    host = host.partition("%")[0]
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def split_broker_url(url: str) -> SplitResult:
    """Return the parts of a broker's URL. `ValueError` has a sentence that does not repeat the URL.

    A user or a password has no use in such a URL, and would be shown to others with it.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("The broker's URL has a character that no URL has.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError("The host or the port in the broker's URL is malformed.") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("A broker's URL is ws://HOST:PORT or wss://HOST.")
    if port == 0 or len(parts.hostname) > 253 or max(map(len, parts.hostname.split("."))) > 63:
        raise ValueError("The host or the port in the broker's URL is malformed.")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ValueError("A broker's URL has no user, no password, no query and no fragment.")
    if _PATH.fullmatch(parts.path) is None:
        raise ValueError("The path in the broker's URL has other characters than letters, digits and ._~-.")
    return parts


def check_broker_url(url: str) -> SplitResult:
    """Return the parts of an address at which members dial a broker: ws or wss. `ValueError`."""
    parts = split_broker_url(url)
    if parts.scheme not in ("ws", "wss"):
        raise ValueError(
            f"A broker's URL does not begin with {parts.scheme}://. Use wss:// (ws:// without encryption)."
        )
    return parts


def check_host(host: str) -> None:
    """Raise `ValueError` for a text that is neither an address nor a name of a host."""
    if is_address(host):
        return
    try:
        split_broker_url(f"ws://{bracketed(host)}")
    except ValueError as error:
        raise ValueError("The host is neither an address nor a name.") from error


def audience_of(broker_url: str) -> str:
    """Return the `host:port` of a broker's URL; the port defaults to that of the scheme. `ValueError`."""
    parts = split_broker_url(broker_url)
    return host_port(parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme])


def canonical_audience(audience: str) -> str:
    """Return a `host:port` in the one spelling that is compared: lower case, canonical host."""
    host, port = split_host_port(audience.lower())
    return host_port(canonical_host(host), port)
