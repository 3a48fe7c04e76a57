"""Syntax trees of sources, parsed once for all rules that look at them."""

from __future__ import annotations

import ast
from functools import cache


@cache
def nodes(source: str) -> tuple[ast.AST, ...]:
    """Return every node of a module. `forget` frees them."""
    return tuple(ast.walk(ast.parse(source)))


def forget() -> None:
    """Free all trees: those of the whole project take some hundred megabytes."""
    nodes.cache_clear()
