"""Names that look like a given one, out of many."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable, Sequence

_NEAR = 3
# The comparison proper takes a while for each name, so only the likeliest get it: a mistyped name of a mesh
# with tens of thousands of members must not hold up everything else.
_COMPARED = 64


def near_names(wanted: str, names: Iterable[str]) -> Sequence[str]:
    """Return up to three names that look like the wanted one, the nearest first."""
    pairs = {wanted[place : place + 2] for place in range(len(wanted) - 1)} or {wanted}
    likely = heapq.nlargest(_COMPARED, names, key=lambda name: sum(pair in name for pair in pairs))
    return difflib.get_close_matches(wanted, likely, n=_NEAR)
