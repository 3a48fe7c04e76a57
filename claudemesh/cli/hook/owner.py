"""The session whose client runs a hook, found among the sessions of this host."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

_DEEPEST: Final = 32
_STATE_TO_PARENT: Final = 1


def owner(
    sessions: Sequence[Mapping[str, Any]],
    given: Mapping[str, Any],
    ancestors: Sequence[int],
    parent_of: Callable[[int], int | None],
) -> Mapping[str, Any] | None:
    """Return the session, None when it is not known.

    The server of a session is a child of the client that runs the hook. Where processes cannot be seen, the
    client's id of the session tells it, or the only session of the directory.
    """
    live = [one for one in sessions if one["client"] != "terminal"]
    for one in live:
        if one["pid"] is not None and parent_of(one["pid"]) in ancestors:
            return one
    known = given.get("session_id")
    for one in live:
        if known and one["client_session_id"] == known:
            return one
    same = [one for one in live if one["cwd"] == given.get("cwd")]
    return same[0] if len(same) == 1 and same[0]["client_session_id"] is None else None


def own_ancestors() -> list[int]:
    """Return the processes above this one, without that of the system."""
    found: list[int] = []
    pid: int | None = os.getppid()
    while pid is not None and pid > 1 and len(found) < _DEEPEST:
        found.append(pid)
        pid = parent_of(pid)
    return found


def parent_of(pid: int) -> int | None:
    """Return the parent of a process, None where it cannot be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return int(file.read().rpartition(b")")[2].split()[_STATE_TO_PARENT])
    except (OSError, ValueError, IndexError):
        return None
