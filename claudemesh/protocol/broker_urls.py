"""Broker URLs in links and statements: their form (docs/spec/lifecycle.md, Joining)."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from claudemesh.protocol.errors import InvalidField

_URL: Final = re.compile(r"wss?://[!-~]{1,250}")
_LABEL_CHARACTERS: Final = 63


def check_broker_url(value: object, field: str, code: str) -> str:
    """Return a valid broker URL: ws or wss, a host, no user, no query and no fragment."""
    if not isinstance(value, str) or _URL.fullmatch(value) is None:
        raise InvalidField(code, field, f"{field} must be a ws:// or wss:// URL.")
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
        usable = bool(host) and parts.port != 0 and max(map(len, host.split("."))) <= _LABEL_CHARACTERS
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidField(code, field, f"{field} must have a host, and no user, query or fragment.")
    return value
