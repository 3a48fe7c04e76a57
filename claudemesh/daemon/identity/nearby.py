"""Search for similar names among many."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

_NEAR = 3
# The full comparison is slow, so only the likeliest names get it: a mistyped name in a mesh of tens of
# thousands of members must not block the event loop.
_COMPARED = 64
# Number of names that a sentence lists when none is similar.
_LISTED = 10
MORE_THAN_LISTED = _LISTED + 1


def candidates(near: Sequence[str], names: Sequence[str]) -> str:
    """Return the sentence that helps with a wrong name: the similar names, or else up to ten of all names."""
    if near:
        return f"Did you mean {' or '.join(near)}?"
    if not names:
        return "There are no members."
    rest = " and others" if len(names) > _LISTED else ""
    return f"The members are {', '.join(names[:_LISTED])}{rest}."


def near_names(wanted: str, names: Iterable[str]) -> Sequence[str]:
    """Return up to three names similar to the wanted one, the most similar first."""
    # Needed for a wrong name only, and a daemon keeps what it imports.
    import difflib

    pairs = {wanted[place : place + 2] for place in range(len(wanted) - 1)} or {wanted}
    likely = heapq.nlargest(_COMPARED, names, key=lambda name: sum(pair in name for pair in pairs))
    return difflib.get_close_matches(wanted, likely, n=_NEAR)
