"""Garbage collector settings: a pass stops every thread, so it must be short."""

from __future__ import annotations

import gc


def settle() -> None:
    """Exclude the objects that exist after a start from every later pass; they are never freed.

    A full pass over modules and classes takes 20 ms, and one runs whenever enough new objects have survived.
    """
    gc.collect()
    gc.freeze()
