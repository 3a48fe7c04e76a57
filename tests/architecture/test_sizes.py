"""Modules and functions stay small enough to be read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.parsed import nodes

ROOT = Path(__file__).parents[2]
MODULE_LINES = 400
BODY_LINES = 60
PARAMETERS = 8
# Each must be one file: the first is copied into other projects, the second runs as a script of its own.
ONE_FILE = {Path("claudemesh/sdk.py"), Path("claudemesh/daemon/hooks/fork_server.py")}
SOURCES = sorted([*(ROOT / "claudemesh").rglob("*.py"), *(ROOT / "build").rglob("*.py")])


def bodies(source: str) -> Iterator[tuple[str, int]]:
    """Each function's name and lines, its docstring not counted."""
    for node in nodes(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body:
                yield node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1


def constructor_arguments(made: ast.ClassDef) -> int:
    """The arguments of a class's own constructor, besides self."""
    for node in made.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            arguments = node.args
            return len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]) - 1
    return 0


def test_no_module_is_longer_than_400_lines() -> None:
    """A longer module has to be split."""
    lines = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: n for path, n in lines.items() if n > MODULE_LINES and path not in ONE_FILE} == {}


def test_no_function_body_is_longer_than_60_lines() -> None:
    """A longer function has to be split."""
    long = [
        (str(path.relative_to(ROOT)), name, count)
        for path in SOURCES
        for name, count in bodies(path.read_text())
        if count > BODY_LINES
    ]
    assert long == []


def test_no_constructor_takes_more_than_eight_arguments() -> None:
    """A constructor with more does two things, or needs a value that groups some of them."""
    wide = [
        (str(path.relative_to(ROOT)), node.name, count)
        for path in SOURCES
        for node in nodes(path.read_text())
        if isinstance(node, ast.ClassDef) and (count := constructor_arguments(node)) > PARAMETERS
    ]
    assert wide == []


def test_a_long_body_is_counted_without_its_docstring() -> None:
    """The counter itself."""
    source = 'def f():\n    """Say.\n\n    More.\n    """\n' + "    pass\n" * 61
    assert list(bodies(source)) == [("f", 61)]
