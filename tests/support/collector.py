"""A collector of traces: it takes spans by OTLP/HTTP in JSON, and checks their form."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_TRACE, _SPAN, _NANOS = (re.compile(form) for form in (r"[0-9a-f]{32}", r"[0-9a-f]{16}", r"[0-9]{19}"))


class Collector:
    """The spans that have come, each with its resource's `service.name` as `service`."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        # Statuses of the next answers, before those of success.
        self.refusals: list[int] = []
        self.raw = ""
        self.url = ""

    def take(self, path: str, kind: str | None, raw: bytes) -> int:
        """Take one request; return the status of its answer."""
        assert (path, kind) == ("/v1/traces", "application/json")
        if self.refusals:
            return self.refusals.pop(0)
        self.raw += raw.decode()
        for found in json.loads(raw)["resourceSpans"]:
            resource = _values(found["resource"]["attributes"])
            for scope in found["scopeSpans"]:
                for span in scope["spans"]:
                    _check(span)
                    about = _values(span["attributes"])
                    self.spans.append({**span, "attributes": about, "service": resource["service.name"]})
        return 200

    def of_trace(self, trace_id: str) -> list[dict[str, Any]]:
        """Return the spans of a trace."""
        return [span for span in list(self.spans) if span["traceId"] == trace_id]


def _values(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    return {each["key"]: next(iter(each["value"].values())) for each in attributes}


def _check(span: dict[str, Any]) -> None:
    assert _TRACE.fullmatch(span["traceId"])
    assert _SPAN.fullmatch(span["spanId"])
    assert "parentSpanId" not in span or _SPAN.fullmatch(span["parentSpanId"])
    assert _NANOS.fullmatch(span["startTimeUnixNano"])
    assert _NANOS.fullmatch(span["endTimeUnixNano"])
    assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])


@contextmanager
def collector() -> Generator[Collector]:
    """A collector on a port of the loopback."""
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(made.take(self.path, self.headers["Content-Type"], raw))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
