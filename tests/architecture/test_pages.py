"""Pages of docs/: links and file names lead somewhere, and the table of failpoints is complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from claudemesh.cli.main import cli
from tests.support.pages import ROOT, anchor, code_spans, headings, links, pages, shell_lines

PAGES = {page.relative_to(ROOT).as_posix(): page for page in pages()}
# Pages about the past name files as they were.
HISTORY = {"CHANGELOG.md", "docs/decisions.md"}
_PATH = re.compile(r"(?:claudemesh|tests|build|docs)/[\w./-]*\w/?|(?:[a-z_]+/)+(?:[a-z_]+\.(?:py|sql|c))?")
_FAILPOINT = re.compile(r"""failpoint\(["']([a-z_.]+)["']\)""")
# Words behind which another command may stand on the same line.
_BEFORE = {
    "|",
    "&&",
    "||",
    ";",
    "(",
    "sudo",
    "exec",
    "env",
    "--",
    "if",
    "while",
    "until",
    "do",
    "then",
    "!",
    "time",
}
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


@pytest.mark.parametrize("name", sorted(PAGES.keys() - HISTORY))
def test_every_line_of_a_shell_block_is_one_command_that_exists(name: str) -> None:
    assert [(line, fault) for line in shell_lines(PAGES[name]) if (fault := _fault_of(line))] == []


@pytest.mark.parametrize(
    "line",
    [
        "claudemesh broker mesh list claudemesh broker audit team",
        "team claudemesh broker check",
        "claudemesh broker check     # exit 1 when not complete claudemesh broker job list",
        "claudemesh broker polish",
        "# of each job claudemesh broker job run message-sweep",
    ],
)
def test_a_line_that_a_rewrap_has_joined_is_found(line: str) -> None:
    assert _fault_of(line)


def _fault_of(line: str) -> str | None:
    """Return why a line cannot be pasted as it is, None if it can."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError:
        # A quoted text that goes on in the next line, or an apostrophe of a comment.
        words = line.split()
    command, remark = words, list[str]()
    if "#" in words:
        command, remark = words[: words.index("#")], words[words.index("#") :]
    if any(_names_a_command(remark[at:]) for at in range(len(remark))):
        return "a comment holds a command"
    starts = [at for at in range(len(command)) if _names_a_command(command[at:])]
    for at in starts:
        if at and not _begins_a_command(command[at - 1]):
            return f"a command stands behind {command[at - 1]}"
        if unknown := _unknown(command[at + 1 :]):
            return f"there is no command {unknown}"
    return None


def _names_a_command(words: list[str]) -> bool:
    """Tell whether words begin with the program and one of its commands, or what could be one."""
    return len(words) > 1 and words[0] == "claudemesh" and re.fullmatch(r"[a-z][a-z-]*", words[1]) is not None


def _begins_a_command(word: str) -> bool:
    return word in _BEFORE or word.endswith(("$(", "=", ";", "(")) or "=" in word


def _unknown(words: list[str]) -> str | None:
    """Return the first word that names no command of its group, None when each does."""
    found: click.Command | None = cli
    context = click.Context(cli)
    for word in words:
        if not isinstance(found, click.Group) or word.startswith("-"):
            return None
        found = found.get_command(context, word)
        if found is None:
            return word
    return None
