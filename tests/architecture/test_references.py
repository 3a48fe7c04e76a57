"""References in comments, docstrings and SQL lead to a page and a heading that exist.

A reference is spelt `docs/spec/broker.md, Accepting a send`: the page's path, a comma, one of its headings.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pages import ROOT, headings

FOLDERS = ("claudemesh", "build", "tests")
FILES = {
    path.relative_to(ROOT).as_posix(): path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".sql", ".c"} and path.is_file()
}
_PAGE = re.compile(r"(?<![\w/])((?:[\w.-]+/)*[\w-]+\.md)\b(, )?")
_NUMBERED = re.compile(r"\b[Ff]aults? \d+|[Ss]ecurity requirement \d+|\b[Ff]aults?\.md")
_GUTTER = re.compile(r"\s*\n\s*(?:#|--|\*)?\s*")


def passages(path: Path) -> Iterator[str]:
    """Yield the text of a file in which references stand, each passage on one line."""
    text = path.read_text(encoding="utf-8")
    if _PAGE.search(text) is None and _NUMBERED.search(text) is None:
        return
    if path.suffix != ".py":
        yield _GUTTER.sub(" ", text)
        return
    comment = ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comment += token.string.lstrip("# ") + " "
        elif token.type == tokenize.STRING and token.string.startswith('"""'):
            yield _GUTTER.sub(" ", token.string)
        elif token.type not in (tokenize.NL, tokenize.NEWLINE):
            yield comment
            comment = ""
    yield comment


def wrong_references(text: str) -> list[str]:
    """Return the references of a passage that lead nowhere."""
    wrong = _NUMBERED.findall(text)
    for found in _PAGE.finditer(text):
        name, comma = found.groups()
        page = ROOT / name
        rest = text[found.end() :]
        is_spec = name.startswith("docs/spec/")
        if not page.is_file():
            wrong.append(name)
        elif is_spec and not comma:
            wrong.append(f"{name}, without a heading")
        elif name.startswith("docs/") and comma and not _begins_with_a_heading(rest, page):
            wrong.append(f"{name}, {rest[:30]}")
    return wrong


def _begins_with_a_heading(text: str, page: Path) -> bool:
    return any(re.match(re.escape(heading) + r"(?!\w)", text) for heading in headings(page))


def test_every_reference_leads_to_a_page_and_a_heading() -> None:
    found = {
        name: wrong
        for name, path in FILES.items()
        if (wrong := [one for passage in passages(path) for one in wrong_references(passage)])
    }
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "see broker.md, Storage",
        "see docs/spec/broker.md",
        "see docs/spec/broker.md, Storing",
        "see docs/spec/nothing.md, Storage",
        "after fault 44",
        "security requirement 15",
    ],
)
def test_a_reference_that_leads_nowhere_is_found(text: str) -> None:
    assert wrong_references(text)


def test_a_right_reference_passes() -> None:
    assert wrong_references("Accept path (docs/spec/broker.md, Accepting a send). See README.md.") == []
