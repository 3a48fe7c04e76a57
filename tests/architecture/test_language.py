"""Docstrings begin with a noun or a verb, and their first paragraph ends with a full stop."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {
    path.relative_to(ROOT).as_posix(): path
    for folder in ("claudemesh", "build")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
QUESTION_WORDS = frozenset({"what", "who", "where", "which", "whoever", "whatever", "how", "why", "nobody"})

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def first_paragraphs(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and first paragraph of each docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text.partition("\n\n")[0]


def faults(paragraph: str) -> list[str]:
    """Return what is wrong with the first paragraph of a docstring."""
    first = re.match(r"[`'\"(]*([\w-]*)", paragraph)
    found = []
    if first is not None and first[1].lower() in QUESTION_WORDS:
        found.append("begins with a question word")
    if not paragraph.rstrip("`)\"'").endswith((".", ":", "?")):
        found.append("does not end with a full stop")
    return found


def faults_of(path: Path) -> list[str]:
    """Return the faults of a module's docstrings with their lines."""
    return [
        f"line {line}: {fault}: {paragraph[:60]!r}"
        for line, paragraph in first_paragraphs(path.read_text(encoding="utf-8"))
        for fault in faults(paragraph)
    ]


def test_docstrings_name_their_thing_in_a_sentence() -> None:
    found = [f"{name} {fault}" for name, path in MODULES.items() for fault in faults_of(path)]
    assert found == []


@pytest.mark.parametrize(
    "text", ["What a hook gets.", "Whoever asks waits.", "Return the row", "`Who` is here."]
)
def test_a_docstring_out_of_form_is_found(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize("text", ["Return the row.", "Fast path: skip the lookup.", "Accept (or refuse).)"])
def test_a_docstring_in_form_passes(text: str) -> None:
    assert faults(text) == []
