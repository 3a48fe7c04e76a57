"""A JSON value as its text: shown and passed on without becoming thousands of objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson


class JsonText:
    """The text of one JSON value, which this program made or checked.

    No dataclass: orjson would write it as an object with a field.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def value(self) -> Any:
        """Return the value."""
        return orjson.loads(self.text)


def plain(value: object) -> Any:
    """Give orjson, as its `default`, the text of a JsonText, and a dict for a read-only mapping."""
    if isinstance(value, JsonText):
        return orjson.Fragment(value.text)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
