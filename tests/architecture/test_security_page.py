"""docs/security.md: every promise names tests, and each of them exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
ATTACKERS = PAGE.partition("\n## Attackers\n")[2].partition("\n## ")[0]
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
_SPELT = re.compile(r"`tests/[\w/]+\.py::\w+`")


@cache
def names_of(path: str) -> set[str]:
    """The names of the tests of a file."""
    tree = ast.parse((ROOT / path).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, functions) and node.name.startswith("test_")}


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED)), ids=lambda part: Path(part).stem)
def test_a_test_that_the_page_names_exists(path: str, name: str) -> None:
    assert (ROOT / path).is_file()
    assert name in names_of(path)


def test_every_promise_names_its_tests_and_every_attacker_has_what_remains() -> None:
    sections = re.split(r"^### ", ATTACKERS, flags=re.MULTILINE)[1:]
    assert len(sections) >= 8
    for section in sections:
        title = section.partition("\n")[0]
        assert "\nRemaining risk: " in section, title
        rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
        assert rows, title
        for row in rows:
            *_, tests = [cell.strip() for cell in row.strip("|").split(" | ")]
            cited = [one.strip() for one in tests.split(", ")]
            assert cited and all(_SPELT.fullmatch(one) for one in cited), row


def test_the_page_says_what_does_not_hold() -> None:
    plain = PAGE.partition("\n## What is not promised\n")[2].partition("\n## ")[0].lower()
    for word in ("forward secrecy", "trust on first use", "metadata", "root on the host", "withhold"):
        assert word in plain, word


def test_how_to_report_stands_at_the_top() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    assert "docs/security.md" in text
    assert "Reporting a vulnerability" in text
