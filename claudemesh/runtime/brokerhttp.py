"""HTTP client for a broker: one request, a bounded JSON answer, no redirects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit

import orjson

from claudemesh.runtime.exchange import exchange
from claudemesh.runtime.outward import proxy_for, tls_context, tls_context_of


@dataclass(frozen=True, slots=True)
class BrokerAnswer:
    """Answer of a broker. `body` is None when it is not JSON."""

    status: int
    body: Any


def ask_broker(
    url: str,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    token: str | None = None,
    ca_file: Path | None = None,
    certificate: str | None = None,
    deadline_s: float,
    most_bytes: int,
) -> BrokerAnswer:
    """Ask the broker at a ws:// or wss:// URL. `Redirected`, `OSError` or `HTTPException`: see `exchange`.

    The authorities of `ca_file` are trusted besides those of the system. With `certificate` that one alone is
    trusted, and the broker is dialled directly: it runs on this host.
    """
    parts = urlsplit(url)
    headers = {} if body is None else {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    status, raw = exchange(
        parts.hostname or "",
        parts.port,
        method,
        parts.path.rstrip("/") + path,
        None if body is None else orjson.dumps(body),
        headers,
        tls=_tls(parts.scheme, ca_file, certificate),
        proxy=proxy_for(url) if certificate is None else None,
        deadline_s=deadline_s,
        most_bytes=most_bytes,
    )
    try:
        return BrokerAnswer(status, orjson.loads(raw))
    except orjson.JSONDecodeError:
        return BrokerAnswer(status, None)


def _tls(scheme: str, ca_file: Path | None, certificate: str | None) -> SSLContext | None:
    if scheme != "wss":
        return None
    return tls_context(ca_file) if certificate is None else tls_context_of(certificate)
