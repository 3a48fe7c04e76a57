"""The table of routes, asked by everything that treats one route otherwise than another."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from claudemesh.daemon.api.routes import Operation

OTHER: Final = "other"
_VALUE: Final = re.compile(r"\\\{\w+\\\}")


class RouteTable:
    """Paths of the operations, by their label and by their flags."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        listed = tuple(operations)
        self._plain = frozenset(one.path for one in listed if "{" not in one.path)
        templates = dict.fromkeys(one.path for one in listed if "{" in one.path)
        self._templates = [(re.compile(_VALUE.sub("[^/]+", re.escape(path))), path) for path in templates]
        self.streams = frozenset(one.path for one in listed if one.streams)
        self.for_hooks = frozenset(one.path for one in listed if one.for_hooks)
        self.socket_only = frozenset(one.path for one in listed if one.socket_only)
        self.public = frozenset(one.path for one in listed if one.public)

    def label(self, path: str) -> str:
        """Return the route that a path as it came belongs to, never an id or a name; `other` without one."""
        if path in self._plain:
            return path
        return next((label for pattern, label in self._templates if pattern.fullmatch(path)), OTHER)
