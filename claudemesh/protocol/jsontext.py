"""A JSON value as its text: shown and passed on without becoming thousands of objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class JsonText:
    """The text of one JSON value, which this program made or checked."""

    text: str

    def value(self) -> Any:
        """Return the value."""
        return orjson.loads(self.text)

    def fragment(self) -> orjson.Fragment:
        """Return what orjson writes as it is."""
        return orjson.Fragment(self.text)


def plain(value: object) -> Any:
    """Give orjson, as its `default`, the text of a JsonText, and a dict for a read-only mapping."""
    if isinstance(value, JsonText):
        return value.fragment()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
