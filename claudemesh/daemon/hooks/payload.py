"""The standard input of a hook: the event's JSON, redacted, then cut to its bound."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from claudemesh.protocol.jsontext import JsonText, plain
from claudemesh.runtime import aside

PAYLOAD_LIMIT = 256 << 10
REDACTED = "[redacted]"


def encode_event(event: Mapping[str, Any], redact: Sequence[str] = (), limit: int = PAYLOAD_LIMIT) -> bytes:
    """Return the event as JSON in at most `limit` bytes. `_truncated` marks an event that was cut."""
    redacted = {**event, **_redacted(event, redact)}
    raw = orjson.dumps(redacted, default=plain)
    return raw if len(raw) <= limit else _cut(redacted, limit)


def weight_of(event: Mapping[str, Any], redact: Sequence[str]) -> int:
    """Return the weight of an event for `aside.run`. With a redaction it is parsed and encoded again."""
    texts = (event.get(_text_field(event)), event.get("meta")) if redact else ()
    return sum(aside.weight_of(text.text if isinstance(text, JsonText) else text or "") for text in texts)


def _redacted(event: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    text = _text_field(event)
    for path in paths:
        head, *rest = path.split(".")
        head = text if head == "body" else head
        value = changed.get(head, event.get(head))
        if value is not None:
            changed[head] = _in_text(value, rest) if head == text else _hide(value, rest)
    return changed


def _text_field(event: Mapping[str, Any]) -> str:
    """Return the name of the text field: `message` of a send, `body` of a received message."""
    return "message" if "message" in event else "body"


def _in_text(body: str, path: Sequence[str]) -> str:
    """Redact inside a body that is JSON. An invalid one is redacted completely, because its reader may be
    lenient."""
    if not path:
        return REDACTED
    if not body.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        return body
    try:
        # The standard library keeps numbers unchanged. The body is always encoded again: of two keys with
        # the same name only the last one stays, for every reader.
        text = json.dumps(_hide(json.loads(body), path), ensure_ascii=False)
        # An escaped lone surrogate is valid in JSON, but not in UTF-8 text.
        text.encode()
        return text
    except (ValueError, RecursionError):
        return REDACTED


def _hide(value: Any, path: Sequence[str]) -> Any:
    if not path:
        return REDACTED
    if isinstance(value, JsonText):
        value = value.value()
    name, *rest = path
    if isinstance(value, Mapping):
        return {key: _hide(item, rest) if name in (key, "*") else item for key, item in value.items()}
    if isinstance(value, list):
        return [_hide(item, rest) if name in (str(index), "*") else item for index, item in enumerate(value)]
    return value


def _cut(event: Mapping[str, Any], limit: int) -> bytes:
    cut = {**event, "_truncated": True}
    meta = orjson.dumps(cut.get("meta"), default=plain)
    if len(meta) > limit // 4:
        cut["meta"] = None
    name = _text_field(event)
    text = cut.get(name) or ""
    cut[name] = ""
    cut[name] = _fitting(text, limit - len(orjson.dumps(cut, default=plain)))
    return orjson.dumps(cut, default=plain)


def _fitting(text: str, room: int) -> str:
    """Return the longest prefix whose JSON has at most `room` bytes between its quotes."""
    low, high = 0, min(len(text), max(0, room))
    while low < high:
        middle = (low + high + 1) // 2
        if len(orjson.dumps(text[:middle])) - 2 <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low]
