"""State machine of a shared file (docs/spec/daemon.md, Shared files)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class ShareState(StrEnum):
    """The state of a file, named after the step that comes next, or after the end.

    `attaching`: the message waits for the broker, which then learns the recipients of the blob.
    """

    UPLOADING = "uploading"
    ANNOUNCING = "announcing"
    ATTACHING = "attaching"
    SHARED = "shared"
    FAILED = "failed"
    DELETED = "deleted"


OPEN: Final = (ShareState.UPLOADING, ShareState.ANNOUNCING, ShareState.ATTACHING)

NEXT: Final[Mapping[ShareState, frozenset[ShareState]]] = {
    ShareState.UPLOADING: frozenset({ShareState.ANNOUNCING, ShareState.FAILED, ShareState.DELETED}),
    ShareState.ANNOUNCING: frozenset(
        {ShareState.ATTACHING, ShareState.UPLOADING, ShareState.FAILED, ShareState.DELETED}
    ),
    ShareState.ATTACHING: frozenset({ShareState.SHARED, ShareState.FAILED, ShareState.DELETED}),
    ShareState.SHARED: frozenset({ShareState.DELETED}),
    ShareState.FAILED: frozenset({ShareState.DELETED}),
    ShareState.DELETED: frozenset(),
}


def check_step(origin: ShareState, target: ShareState) -> None:
    """Raise `ValueError` for a step that the table does not have."""
    if target not in NEXT[origin]:
        raise ValueError(f"A file that is {origin} never becomes {target}.")
