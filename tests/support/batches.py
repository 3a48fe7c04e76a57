"""Frames with several items, taken apart into the frames that they stand for."""

from __future__ import annotations

from typing import Any, Final

SINGLE: Final = {"sends": "send", "send_results": "send_result", "delivers": "deliver"}


def taken_apart(frame: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a frame, or those that its items stand for."""
    if frame["type"] not in SINGLE:
        return [frame]
    return [{"type": SINGLE[frame["type"]], **item} for item in frame["items"]]
