"""Export of spans: batches by OTLP/HTTP, from a queue with a bound.

Spans tell of work, and never delay it. While the collector does not answer they wait up to the bound; newer
ones are dropped then, and counted in the log.
"""

from __future__ import annotations

import asyncio
import http.client
from collections import deque
from collections.abc import Mapping
from itertools import islice
from urllib.parse import urlsplit

import claudemesh
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.exchange import Redirected, exchange
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.outward import proxy_for, tls_context
from claudemesh.runtime.tracing.otlp import encode_spans
from claudemesh.runtime.tracing.spans import Span

log = get_logger("tracing")

MAX_WAITING = 4096
_BATCH = 512
# Spans that end within this time are exported together.
_GATHER_S = 0.5
_DEADLINE_S = 10.0
_LAST_S = 2.0
_ANSWER_BYTES = 1 << 16
_ROUTE = "/v1/traces"
_HEADERS = {"Content-Type": "application/json"}
# The collector is busy or away: the same spans are offered again.
_AGAIN = (408, 429, 502, 503, 504)


class Exporter:
    """Sends the spans that were added to one collector."""

    def __init__(self, endpoint: str, resource: Mapping[str, str]) -> None:
        self._parts = urlsplit(endpoint)
        path = self._parts.path.rstrip("/")
        self._path = path if path.endswith(_ROUTE) else path + _ROUTE
        self._endpoint = endpoint
        self._resource = {**resource, "service.version": claudemesh.__version__}
        self._waiting: deque[Span] = deque()
        self._wake = asyncio.Event()
        self._backoff = Backoff(initial_s=1.0, cap_s=30.0)
        self._failures = 0
        self._dropped = 0

    def add(self, span: Span) -> None:
        """Take a span, unless as many as the bound wait."""
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.append(span)
        self._wake.set()

    async def run(self) -> None:
        """Export until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_GATHER_S)
            self._wake.clear()
            while self._waiting:
                if not await self._export(_DEADLINE_S):
                    await asyncio.sleep(self._backoff.delay_s(self._failures))

    async def close(self) -> None:
        """Offer what waits once more."""
        if self._waiting:
            await self._export(_LAST_S)

    async def _export(self, deadline_s: float) -> bool:
        """Export a batch; return whether it is done with. One that the collector refuses is dropped."""
        batch = list(islice(self._waiting, _BATCH))
        try:
            status = await asyncio.to_thread(self._post, batch, deadline_s)
        except (OSError, http.client.HTTPException, Redirected) as error:
            self._failed(str(error))
            return False
        if status in _AGAIN:
            self._failed(f"HTTP {status}")
            return False
        for _ in batch:
            self._waiting.popleft()
        if status >= 300:
            log.warning("spans_refused", count=len(batch), status=status)
        if self._failures or self._dropped:
            log.info("spans_exported_again", dropped=self._dropped)
        self._failures = self._dropped = 0
        return True

    def _failed(self, reason: str) -> None:
        if not self._failures:
            log.warning("spans_not_exported", error=reason)
        self._failures += 1

    def _post(self, batch: list[Span], deadline_s: float) -> int:
        body = encode_spans(batch, self._resource)
        status, _ = exchange(
            self._parts.hostname or "",
            self._parts.port,
            "POST",
            self._path,
            body,
            _HEADERS,
            tls=tls_context(None) if self._parts.scheme == "https" else None,
            proxy=proxy_for(self._endpoint),
            deadline_s=deadline_s,
            most_bytes=_ANSWER_BYTES,
        )
        return status
