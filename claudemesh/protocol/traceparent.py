"""Trace contexts of W3C Trace Context, as they travel with messages: the value of `traceparent`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from claudemesh.protocol.jsontext import JsonText

TRACEPARENT = "traceparent"
_QUOTED = f'"{TRACEPARENT}"'.encode()
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A position in a trace: the trace, the span that is the parent of what follows, and whether spans are
    recorded."""

    trace_id: str
    span_id: str
    sampled: bool

    @property
    def traceparent(self) -> str:
        """The value of the header."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def parse_traceparent(value: object) -> TraceContext | None:
    """Return the context of a value, None for one that is not valid: it is ignored, as the standard asks."""
    found = _FORM.match(value) if isinstance(value, str) else None
    if found is None:
        return None
    version, trace_id, span_id, flags = found.groups()
    if version == "ff" or not (trace_id.strip("0") and span_id.strip("0")):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def valid_traceparent(value: object) -> str | None:
    """Return a value that is valid, as it came, None for another one."""
    return str(value) if parse_traceparent(value) is not None else None


def traceparent_in(meta: object) -> str | None:
    """Return the valid `traceparent` of a meta, as a mapping or as JSON, None without one."""
    text = meta.text if isinstance(meta, JsonText) else meta
    if isinstance(text, bytes | str):
        # Most have none, and are not parsed.
        raw = text if isinstance(text, bytes) else text.encode()
        if _QUOTED not in raw:
            return None
        meta = orjson.loads(raw)
    return valid_traceparent(meta.get(TRACEPARENT)) if isinstance(meta, Mapping) else None


def with_traceparent(meta: Mapping[str, Any] | None, traceparent: str | None) -> Mapping[str, Any] | None:
    """Return a meta with the position in a trace that came beside it."""
    return meta if traceparent is None else {**(meta or {}), TRACEPARENT: traceparent}
