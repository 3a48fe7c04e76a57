"""Protection against web pages: a page in a browser on the same host or network can send requests to a
server.

A page of another origin is recognized by `Origin`, `Referer` or `Sec-Fetch-Site`. A page whose host name
resolves to this server (DNS rebinding) has the same origin, and is recognized by `Host`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from claudemesh.runtime.urls import is_address

BROWSER_HEADERS: Final = (b"origin", b"referer", b"sec-fetch-site")
_OWN_PAGES: Final = frozenset({b"none", b"same-origin"})
_LOOPBACK: Final = re.compile(rb"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{0,5})?|", re.IGNORECASE)


def is_foreign_page(headers: Mapping[bytes, bytes], allowed: frozenset[bytes] = frozenset()) -> bool:
    """Whether a page of an origin that is not allowed sent the request. `headers` hold `BROWSER_HEADERS`."""
    origin = headers.get(b"origin")
    if origin is not None:
        return origin not in allowed
    referer = headers.get(b"referer")
    if referer is not None:
        return _origin_of(referer) not in allowed
    return headers.get(b"sec-fetch-site", b"none") not in _OWN_PAGES


def names_loopback(host: bytes) -> bool:
    """Whether a `Host` is empty, localhost, 127.0.0.1 or [::1], with any port."""
    return _LOOPBACK.fullmatch(host) is not None


def names_address(host: str) -> bool:
    """Whether a `Host` is localhost or an IP address, with any port: DNS cannot rebind these."""
    try:
        parts = urlsplit(f"//{host}")
        # Reading the attribute raises the error for a port that is not a number.
        _ = parts.port
    except ValueError:
        return False
    name = parts.hostname or ""
    return parts.netloc == host and parts.username is None and (name == "localhost" or is_address(name))


def _origin_of(referer: bytes) -> bytes:
    try:
        parts = urlsplit(referer)
    except ValueError:
        return b""
    return parts.scheme + b"://" + parts.netloc
