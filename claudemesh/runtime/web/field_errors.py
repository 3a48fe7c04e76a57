"""Sentences about a wrong field of a body, made from the messages of the parser (msgspec)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_TYPES: Final = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_PARTS: Final = {"str": "characters", "array": "entries", "object": "fields"}
_BOUNDS: Final = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_RULES: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]] = (
    (
        re.compile(r"Expected `([a-z |]+)`, got `([a-z |]+)`"),
        lambda m: f"be {_kinds(m[1])}, not {_kinds(m[2])}",
    ),
    (re.compile(r"Expected `(?:str|array|object)` of length >= 1"), lambda _: "not be empty"),
    (
        re.compile(r"Expected `(str|array|object)` of length ([<>]=?) (\d+)"),
        lambda m: f"have {_BOUNDS[m[2]]} {m[3]} {_PARTS[m[1]]}",
    ),
    (re.compile(r"Expected `(?:int|float)` ([<>]=?) (-?[\d.]+)"), lambda m: f"be {_BOUNDS[m[1]]} {m[2]}"),
    (re.compile(r"Expected `str` matching regex '(.*)'", re.DOTALL), lambda m: f"match the pattern {m[1]}"),
)


def wrong_field(path: str, reason: str) -> str:
    """Return a sentence about the field at `path`. A reason of another form stands in it as it is."""
    for pattern, spell in _RULES:
        if match := pattern.fullmatch(reason):
            return f"{path} must {spell(match)}."
    return f"Correct {path}: {reason[:1].lower()}{reason[1:]}."


def _kinds(types: str) -> str:
    return " or ".join(_TYPES.get(one, one) for one in types.split(" | "))
