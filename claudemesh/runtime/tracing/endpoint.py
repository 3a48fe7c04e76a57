"""The URL of a collector, as settings have it."""

from __future__ import annotations

from urllib.parse import urlsplit


def check_endpoint(url: str) -> object:
    """Raise `ValueError` for a text that is no http:// or https:// URL of a collector."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError from None
    plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not plain:
        raise ValueError
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("The URL has no user, no query and no fragment.")
    return None
