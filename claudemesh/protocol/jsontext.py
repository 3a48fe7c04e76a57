"""JSON values kept as text, which are passed on without being parsed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson


class JsonText:
    """The text of one JSON value, which this program has written or checked.

    It is not a dataclass, because orjson would write one as an object with a field.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def value(self) -> Any:
        """Return the value."""
        return orjson.loads(self.text)


def plain(value: object) -> Any:
    """Return the form that orjson writes; its `default` for `JsonText` and for read-only mappings."""
    if isinstance(value, JsonText):
        return orjson.Fragment(value.text)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form.")
