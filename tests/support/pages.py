"""Markdown pages of the repository: their headings, anchors, links and code spans."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```.*?^```[^\n]*$", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")


def pages() -> list[Path]:
    """Return every page for readers: those at the top, and those in docs/."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@cache
def prose(page: Path) -> str:
    """Return the text of a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


@cache
def headings(page: Path) -> tuple[str, ...]:
    """Return the headings of a page as they read, without code marks."""
    return tuple(found.replace("`", "") for found in _HEADING.findall(prose(page)))


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(page: Path) -> list[str]:
    """Return the targets of a page's links."""
    return _LINK.findall(prose(page))


def code_spans(page: Path) -> list[str]:
    """Return the code spans of a page's prose."""
    return _CODE.findall(prose(page))


def shell_lines(page: Path) -> list[str]:
    """Return the lines of a page's blocks of shell, each joined with those that continue it."""
    text = page.read_text(encoding="utf-8")
    blocks = [block.replace("\\\n", " ") for _, kind, block in _BLOCK.findall(text) if kind in {"sh", "bash"}]
    return [line.strip() for block in blocks for line in block.splitlines()]
