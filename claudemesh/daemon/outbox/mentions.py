"""Mentions in a text: `@name` of a member."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

# A name behind an `@` that begins a word, so that an address of mail or a path is none.
_MENTION: Final = re.compile(r"(?<![\w.@/+-])@([A-Za-z0-9][A-Za-z0-9._-]*)")
_LONGEST_NAME: Final = 63
# A text of 16 MiB may hold millions of names, and of marks without one.
_MOST: Final = 1024
_MOST_MARKS: Final = 65_536


def names_in(text: str) -> Iterator[tuple[str, ...]]:
    """Return the names of the first mentions of a text, each once, with its possible spellings.

    The end of a sentence may follow a name: `@bob.` is `bob.` or `bob`.
    """
    seen: set[str] = set()
    for found in islice(_found(text), _MOST):
        name = found[1]
        if name.lower() in seen:
            continue
        seen.add(name.lower())
        spellings = (name, name.rstrip("._-"))
        yield tuple(one for one in dict.fromkeys(spellings) if len(one) <= _LONGEST_NAME)


def _found(text: str) -> Iterator[re.Match[str]]:
    """Return the mentions of a text. A text without an `@` is passed over at the speed of memory."""
    at = -1
    for _ in range(_MOST_MARKS):
        at = text.find("@", at + 1)
        if at < 0:
            return
        found = _MENTION.match(text, at)
        if found is not None:
            yield found
