"""HTTP client for a broker: one request, a bounded JSON answer, no redirects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from claudemesh.runtime.exchange import exchange
from claudemesh.runtime.outward import proxy_for, tls_context


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
    deadline_s: float,
    most_bytes: int,
) -> BrokerAnswer:
    """Ask the broker at a ws:// or wss:// URL. `Redirected`, `OSError` or `HTTPException`: see `exchange`.

    The authorities of `ca_file` are trusted besides those of the system.
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
        tls=tls_context(ca_file) if parts.scheme == "wss" else None,
        proxy=proxy_for(url),
        deadline_s=deadline_s,
        most_bytes=most_bytes,
    )
    try:
        return BrokerAnswer(status, orjson.loads(raw))
    except orjson.JSONDecodeError:
        return BrokerAnswer(status, None)
