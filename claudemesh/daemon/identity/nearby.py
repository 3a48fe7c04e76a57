"""Names that look like a given one, out of many."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable, Sequence

_NEAR = 3
# The comparison proper takes a while for each name, so only the likeliest get it: a mistyped name of a mesh
# with tens of thousands of members must not hold up everything else.
_COMPARED = 64
# Names in a sentence when none is near.
_LISTED = 10
MORE_THAN_LISTED = _LISTED + 1


def candidates(near: Sequence[str], names: Sequence[str]) -> str:
    """Return the sentence that helps with a wrong name: the near ones, or else up to ten of all names."""
    if near:
        return f"Did you mean {' or '.join(near)}?"
    if not names:
        return "There are no members."
    rest = " and others" if len(names) > _LISTED else ""
    return f"The members are {', '.join(names[:_LISTED])}{rest}."


def near_names(wanted: str, names: Iterable[str]) -> Sequence[str]:
    """Return up to three names that look like the wanted one, the nearest first."""
    pairs = {wanted[place : place + 2] for place in range(len(wanted) - 1)} or {wanted}
    likely = heapq.nlargest(_COMPARED, names, key=lambda name: sum(pair in name for pair in pairs))
    return difflib.get_close_matches(wanted, likely, n=_NEAR)
