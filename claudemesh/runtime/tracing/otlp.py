"""The JSON of OTLP/HTTP for spans (opentelemetry-proto, ExportTraceServiceRequest)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from claudemesh.runtime.tracing.spans import Span

_ERROR = 2


def encode_spans(spans: Sequence[Span], resource: Mapping[str, str]) -> bytes:
    """Return the request that exports spans of one resource."""
    scoped = {"scope": {"name": "claudemesh"}, "spans": [_span(span) for span in spans]}
    found = {"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scoped]}
    return orjson.dumps({"resourceSpans": [found]})


def _span(span: Span) -> dict[str, Any]:
    item: dict[str, Any] = {
        "traceId": span.context.trace_id,
        "spanId": span.context.span_id,
        "name": span.name,
        "kind": int(span.kind),
        # Numbers of 64 bits are texts in the JSON of protobuf.
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _attributes(span.attributes),
        "flags": 1,
    }
    if span.parent_id is not None:
        item["parentSpanId"] = span.parent_id
    if span.error is not None:
        item["status"] = {"code": _ERROR, "message": span.error}
    return item


def _attributes(values: Mapping[str, str | int]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: str | int) -> dict[str, Any]:
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}
