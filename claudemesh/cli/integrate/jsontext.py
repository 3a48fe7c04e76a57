"""Edits of JSON as text, so that comments, order and layout of a user's file stay.

JSON with `//` and `/* */` comments and trailing commas is read, as several clients read it. Each edit takes a
text and returns a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

Path: TypeAlias = Sequence[str]

_BLANK: Final = re.compile(r"(?:[\s\ufeff]|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SCALAR: Final = re.compile(r"[^\s,\]}/]+")
_UNIT: Final = "  "


@dataclass(slots=True)
class Node:
    """A value and its place in the text. `at` begins at the key for the member of an object."""

    value: Any
    at: int
    start: int
    end: int = 0
    items: list[Node] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def member(self, key: str) -> Node | None:
        """Return the value of a key, None without one. The last one counts, as for the clients."""
        places = [place for place, one in enumerate(self.keys) if one == key]
        return self.items[places[-1]] if places else None


def parse(text: str) -> Node:
    """Read a text. `ValueError` when it is not JSON."""
    start = _blank(text, 0)
    try:
        node = _value(text, start, start)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error
    if _blank(text, node.end) != len(text):
        raise ValueError("there is text behind the value")
    return node


def put(text: str, path: Path, value: Any) -> str:
    """Set a member, with the objects on the way to it. One that is there is replaced."""
    node, depth = parse(text), 0
    for key in path[:-1]:
        inner = node.member(key)
        if inner is None:
            break
        node, depth = inner, depth + 1
    if not isinstance(node.value, dict):
        raise ValueError(f"{'.'.join(path[:depth]) or 'the file'} is no object")
    for key in reversed(path[depth + 1 :]):
        value = {key: value}
    old = node.member(path[depth])
    if old is not None:
        return text[: old.start] + _shown(value, _indent(text, old.at)) + text[old.end :]
    return _insert(text, node, lambda indent: f"{json.dumps(path[depth])}: {_shown(value, indent)}")


def append(text: str, path: Path, value: Any) -> str:
    """Add an item to the array at a path, which is made when it is missing."""
    node: Node | None = parse(text)
    for key in path:
        node = None if node is None else node.member(key)
    if node is None:
        return put(text, path, [value])
    if not isinstance(node.value, list):
        raise ValueError(f"{'.'.join(path)} is no array")
    return _insert(text, node, lambda indent: _shown(value, indent))


def cut(text: str, is_cut: Callable[[Path, Any], bool]) -> str:
    """Remove each value for which `is_cut` is true of path and value, and containers that are empty then.

    The items of an array have the path of the array.
    """
    while True:
        found = _find(parse(text), (), is_cut)
        if found is None:
            return text
        text = _without(text, *found)


def _find(node: Node, path: tuple[str, ...], is_cut: Callable[[Path, Any], bool]) -> tuple[Node, int] | None:
    """Return the container and the place of the value to remove next: a container goes with its last item."""
    for number, item in enumerate(node.items):
        inner = (*path, node.keys[number]) if node.keys else path
        if is_cut(inner, item.value):
            return node, number
        found = _find(item, inner, is_cut)
        if found is not None:
            return (node, number) if found[0] is item and len(item.items) == 1 else found
    return None


def _without(text: str, node: Node, number: int) -> str:
    item = node.items[number]
    if number:
        return text[: node.items[number - 1].end] + text[item.end :]
    if len(node.items) > 1:
        return text[: item.at] + text[node.items[1].at :]
    end = _blank(text, item.end)
    return text[: node.start + 1] + text[end + 1 if text[end] == "," else item.end :].lstrip()


def _insert(text: str, node: Node, made: Callable[[str], str]) -> str:
    outer = _indent(text, node.at)
    if node.items:
        last = node.items[-1]
        indent = _indent(text, last.at)
        is_own_line = text[: last.at].rpartition("\n")[2].strip() == ""
        between = f",\n{indent}" if is_own_line else ", "
        return text[: last.end] + between + made(indent if is_own_line else outer) + text[last.end :]
    indent = outer + _UNIT
    rest = text[node.start + 1 :].lstrip(" \t\r\n")
    return f"{text[: node.start + 1]}\n{indent}{made(indent)}\n{outer}{rest}"


def _shown(value: Any, indent: str) -> str:
    return json.dumps(value, indent=_UNIT, ensure_ascii=False).replace("\n", f"\n{indent}")


def _indent(text: str, at: int) -> str:
    line = text[:at].rpartition("\n")[2]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return at if match is None else match.end()


def _value(text: str, at: int, start: int) -> Node:
    if start >= len(text):
        raise ValueError("the text ends too early")
    if text[start] in "{[":
        return _container(text, at, start, is_object=text[start] == "{")
    match = (_STRING if text[start] == '"' else _SCALAR).match(text, start)
    if match is None:
        raise ValueError(f"no value at character {start}")
    return Node(json.loads(match[0]), at, start, match.end())


def _container(text: str, at: int, start: int, *, is_object: bool) -> Node:
    node = Node({} if is_object else [], at, start)
    place = _blank(text, start + 1)
    while text[place : place + 1] != ("}" if is_object else "]"):
        begun = place
        if is_object:
            match = _STRING.match(text, place)
            place = -1 if match is None else _blank(text, match.end())
            if match is None or text[place : place + 1] != ":":
                raise ValueError(f"no member at character {begun}")
            node.keys.append(json.loads(match[0]))
            place = _blank(text, place + 1)
        item = _value(text, begun, place)
        node.items.append(item)
        place = _blank(text, item.end)
        if text[place : place + 1] == ",":
            place = _blank(text, place + 1)
        elif text[place : place + 1] not in ("}", "]"):
            raise ValueError(f"no comma at character {place}")
    if is_object:
        node.value.update(zip(node.keys, (item.value for item in node.items), strict=True))
    else:
        node.value.extend(item.value for item in node.items)
    node.end = place + 1
    return node
