"""Errors are sentences: a capital letter or the name of a field first, a full stop last."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.parsed import nodes

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "claudemesh").rglob("*.py"))
# Errors that people or other programs read, by the name of the class or of the function that makes one.
ERRORS = {
    "ApiError",
    "BadReply",
    "ClientError",
    "Closing",
    "ErrorFrame",
    "ExitWith",
    "InvalidField",
    "ProtocolError",
    "Refusal",
    "SessionViolation",
    "UsageError",
    "WrongHome",
}
_VALUE = "\N{REPLACEMENT CHARACTER}"
# A field or a flag keeps its own spelling; a value may be anything.
_BEGINNING = re.compile(
    rf"[A-Z`{_VALUE}]|--[a-z]|[a-z0-9]+(_[a-z0-9]+)* (must|may|is|has) |[a-z0-9]+(_[a-z0-9]+)+ "
)
_END = re.compile(rf"[.!?{_VALUE}]$")


def texts(node: ast.expr) -> Iterator[str]:
    """The texts of an argument, with a mark for each value that is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else _VALUE for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)


def errors(source: str) -> Iterator[tuple[int, str]]:
    """Each text in the arguments of an error, with its line. Arguments without a space are codes."""
    for node in nodes(source):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in ERRORS:
            for argument in node.args:
                yield from ((node.lineno, text) for text in texts(argument) if " " in text)


def is_sentence(text: str) -> bool:
    return _BEGINNING.match(text) is not None and _END.search(text) is not None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_error_is_a_sentence(path: Path) -> None:
    """The command line prints it as it is."""
    assert [(line, text) for line, text in errors(path.read_text()) if not is_sentence(text)] == []


def test_errors_are_found() -> None:
    """The scan sees constants, filled-in values and alternatives."""
    source = 'raise ProtocolError("code", f"{a} is wrong: b" if x else "Try again.", note="a field")'
    assert list(errors(source)) == [(1, f"{_VALUE} is wrong: b"), (1, "Try again.")]
    assert sum(len(list(errors(path.read_text()))) for path in MODULES) > 150


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The id is taken. Use a new one.", True),
        ("client_message_id must be a text.", True),
        ("mode must be topic or queue.", True),
        ("--listen must be host:port.", True),
        ("mode must be topic or queue", False),
        ("this broker has no mesh.", False),
        ("The id is taken", False),
    ],
)
def test_the_rule(text: str, expected: bool) -> None:
    """The checker itself."""
    assert is_sentence(text) is expected
