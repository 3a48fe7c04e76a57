"""Lines of JSON, by the module of the standard library: orjson imports more than the rest of the server."""

from __future__ import annotations

import json
from typing import Any


def parsed(line: bytes) -> Any:
    """Return the value of a line. Raise `ValueError` for one that is no JSON, or has no form in UTF-8."""
    try:
        value = json.loads(line.decode(), parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if b"\\u" in line:
        # A lone surrogate can be escaped, and no message can carry it.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def line_of(value: object) -> bytes:
    """Return a value as one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
