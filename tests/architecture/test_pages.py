"""Pages of docs/: links and file names lead somewhere, and the table of failpoints is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.pages import ROOT, anchor, code_spans, headings, links, pages

PAGES = {page.relative_to(ROOT).as_posix(): page for page in pages()}
# Pages about the past name files as they were.
HISTORY = {"CHANGELOG.md", "docs/decisions.md"}
_PATH = re.compile(r"(?:claudemesh|tests|build|docs)/[\w./-]*\w/?|(?:[a-z_]+/)+(?:[a-z_]+\.(?:py|sql|c))?")
_FAILPOINT = re.compile(r"""failpoint\(["']([a-z_.]+)["']\)""")
_ROW = re.compile(r"^\|[^|]*\|[^|]*\| `([a-z_.]+)` \|", re.MULTILINE)


def is_there(path: str) -> bool:
    """Tell whether a path of the repository exists; paths below the package may leave its name out."""
    return (ROOT / path).exists() or (ROOT / "claudemesh" / path).exists()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_link_leads_to_a_file_and_a_heading_that_exist(name: str) -> None:
    page = PAGES[name]
    broken = []
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        is_heading = not fragment or fragment in {anchor(heading) for heading in headings(found)}
        if not found.exists() or not is_heading:
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("name", sorted(PAGES.keys() - HISTORY))
def test_every_file_of_the_repository_that_a_page_names_exists(name: str) -> None:
    named = {span.partition("::")[0] for span in code_spans(PAGES[name])}
    is_tree = name == "docs/architecture.md"
    paths = {span for span in named if _PATH.fullmatch(span) and _is_of_the_repository(span, is_tree=is_tree)}
    assert {path for path in paths if not is_there(path)} == set()


def _is_of_the_repository(span: str, *, is_tree: bool) -> bool:
    """Tell whether a path is meant as one of the repository, and not as one of a user's home.

    A folder without the repository's first part counts on the page that draws the tree.
    """
    first = span.partition("/")[0]
    return span.endswith((".py", ".sql")) or first in {"claudemesh", "tests", "build", "docs"} or is_tree


def test_architecture_lists_every_failpoint_of_the_code() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.partition("\n## Phases and failpoints\n")[2].partition("\n## ")[0]
    code = [path.read_text() for path in sorted((ROOT / "claudemesh").rglob("*.py"))]
    inside = {name for text in code for name in _FAILPOINT.findall(text)}
    # The accept on SQLite takes its points from a table of its steps.
    inside |= {name for text in code for name in re.findall(r'"(accept\.[a-z_]+)"', text)}
    assert set(_ROW.findall(table)) == inside
    assert len(inside) > 20


def test_every_page_of_docs_is_in_its_index() -> None:
    index = PAGES["docs/README.md"]
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    docs = {path.resolve() for path in PAGES.values() if Path("docs") in path.relative_to(ROOT).parents}
    assert docs - linked == {index.resolve()}
