"""Language of docstrings, comments and pages, as far as a word list can hold it (CONTRIBUTING.md, Style).

A docstring begins with a noun or a verb, and its first paragraph ends with a full stop. No sentence of a
docstring, a comment or a page has a question word as its subject, and none uses the words of `AVOIDED`.
"""

from __future__ import annotations

import ast
import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.parsed import nodes

ROOT = Path(__file__).parents[2]
MODULES = {
    path.relative_to(ROOT).as_posix(): path
    for folder in ("claudemesh", "build")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
# Without this one, which shows words to avoid.
TESTS = {
    path.relative_to(ROOT).as_posix(): path
    for path in sorted((ROOT / "tests").rglob("*.py"))
    if path != Path(__file__).resolve()
}
# Without migrations and functions, which are never changed.
QUERIES = {
    path.relative_to(ROOT).as_posix(): path
    for path in sorted((ROOT / "claudemesh").rglob("*.sql"))
    if path.name == "queries.sql" or path.parent.name == "sql"
}
# Without CONTRIBUTING.md, which shows sentences to avoid, and the pages that tell history.
HISTORY = {"CHANGELOG.md", "docs/decisions.md", "CONTRIBUTING.md"}
PAGES = {
    name: path
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    if (name := path.relative_to(ROOT).as_posix()) not in HISTORY
}
QUESTION_WORDS = frozenset(
    {"what", "who", "where", "which", "whoever", "whatever", "how", "why", "nobody", "somebody", "everybody"}
)
# Subjects that hide the noun, spoken words for calls of functions, and lengths without a unit.
AVOIDED = re.compile(
    r"\b(whoever|whatever|nobody|anybody|everybody|somebody|anew|hears|hear of|heard of|for so long)\b",
    re.IGNORECASE,
)
SUBJECT = re.compile(r"(?:^|[.;:|] )(What|Who|Whose|That which|Whoever|Whatever|Nobody)\b(?![^.]*\?)")
CODE = re.compile(r"`[^`]*`|\[[^\]]*\]\([^)]*\)")

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring."""
    for node in nodes(source):
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each comment. Comments on consecutive lines are one."""
    found = [
        (token.start[0], token.string.lstrip("#: "))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    for _, block in itertools.groupby(enumerate(found), lambda entry: entry[1][0] - entry[0]):
        lines = [line for _, line in block]
        yield lines[0][0], " ".join(text for _, text in lines)


def paragraphs(page: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each paragraph, row and item of a page, without code."""
    text = re.sub(
        r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), page, flags=re.MULTILINE | re.DOTALL
    )
    start = 1
    for part in re.split(r"(?m)(?=^\s*(?:[*|#-]|\d+\.|$))", text):
        if part.strip() and not part.lstrip().startswith("#"):
            lead = len(part) - len(part.lstrip("\n"))
            yield start + lead, " ".join(part.strip(" \n*|-").split())
        start += part.count("\n")


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of everything in a file that is language."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from docstrings(source)
        yield from comments(source)
    elif path.suffix == ".sql":
        for number, line in enumerate(source.splitlines(), 1):
            if line.lstrip().startswith("--"):
                yield number, line.strip(" -")
    else:
        yield from paragraphs(source)


def faults(paragraph: str) -> list[str]:
    """Return what is wrong with the first paragraph of a docstring."""
    first = re.match(r"[`'\"(]*([\w-]*)", paragraph)
    found = []
    if first is not None and first[1].lower() in QUESTION_WORDS:
        found.append("begins with a question word")
    if not paragraph.rstrip("`)\"'").endswith((".", ":", "?")):
        found.append("does not end with a full stop")
    return found


def words(text: str) -> list[str]:
    """Return the words of a text that are to be replaced."""
    plain = CODE.sub("CODE", " ".join(text.split()))
    return [match[1] for pattern in (AVOIDED, SUBJECT) for match in pattern.finditer(plain)]


def faults_of(path: Path) -> list[str]:
    """Return the faults of a module's docstrings with their lines."""
    return [
        f"line {line}: {fault}: {paragraph[:60]!r}"
        for line, text in docstrings(path.read_text(encoding="utf-8"))
        for paragraph in [text.partition("\n\n")[0]]
        for fault in faults(paragraph)
    ]


def test_docstrings_name_their_thing_in_a_sentence() -> None:
    found = [f"{name} {fault}" for name, path in (MODULES | TESTS).items() for fault in faults_of(path)]
    assert found == []


@pytest.mark.parametrize(
    "files", [MODULES, TESTS, QUERIES, PAGES], ids=["modules", "tests", "queries", "pages"]
)
def test_sentences_name_their_subject(files: dict[str, Path]) -> None:
    assert files
    found = [
        f"{name}:{line}: {word!r} in {' '.join(text.split())[:80]!r}"
        for name, path in files.items()
        for line, text in texts_of(path)
        for word in words(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    "text", ["What a hook gets.", "Whoever asks waits.", "Return the row", "`Who` is here."]
)
def test_a_docstring_out_of_form_is_found(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize("text", ["Return the row.", "Fast path: skip the lookup.", "Accept (or refuse).)"])
def test_a_docstring_in_form_passes(text: str) -> None:
    assert faults(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "The lock is taken. What came in before is in the next commit.",
        "A post that\nnobody reads.",
        "The file is written anew.",
        "`on_limit` hears of each limit.",
        "Wait for so long at most.",
    ],
)
def test_a_word_to_avoid_is_found(text: str) -> None:
    assert words(text)


@pytest.mark.parametrize(
    "text",
    [
        "Return what `read` returns.",
        "What does a restore cost? One request.",
        "The user `nobody` has no home.",
        "The member who left.",
        "Where the kernel allows, a hook has a namespace.",
    ],
)
def test_plain_sentences_pass(text: str) -> None:
    assert words(text) == []


def test_comments_and_paragraphs_are_found_with_their_lines() -> None:
    assert list(comments("x = 1  # one\n\n# two\n# three\n")) == [(1, "one"), (3, "two three")]
    page = "# Title\n\nOne\ntwo.\n\n```sh\nwhatever\n```\n\n| a | b |\n* item\n"
    assert list(paragraphs(page)) == [(3, "One two."), (10, "a | b"), (11, "item")]
