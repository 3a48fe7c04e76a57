"""State of a restore of the broker, and whether it may have caused a refusal.

The reconciler updates it at each link-up. The drain reads it before a row dies.
"""

from __future__ import annotations

from collections.abc import Callable

from claudemesh.daemon.outbox.done import Restore

_HOUR_MS = 3_600_000
# Time after a noticed restore in which a missing destination may still come back.
_PATIENCE_MS = 24 * _HOUR_MS
# Time for which lost sends are shown.
_LOST_SHOWN_MS = 72 * _HOUR_MS
_MAY_COME_BACK = frozenset({"destination_not_found", "topic_not_found"})


class RestoreState:
    """The noticed restore as in outbox.db, and the parts that are not on disk yet."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        """`now_ms` is host-lived time."""
        self._now_ms = now_ms
        self.noticed: Restore | None = None
        # A restore was noticed and is not on disk yet.
        self.to_be_noted = False
        # A link was opened, and no comparison has finished since.
        self.is_unsure = False

    @property
    def age_ms(self) -> float:
        """Host-lived milliseconds since the restore was noticed; infinite without one."""
        return float("inf") if self.noticed is None else self._now_ms() - self.noticed.noticed_ms

    @property
    def lost(self) -> int:
        """Number of sends that are lost for good; 0 when that is no longer shown."""
        return self.noticed.lost if self.noticed is not None and self.age_ms < _LOST_SHOWN_MS else 0

    def may_come_back(self, error: str) -> bool:
        """Whether a restore may have caused a refusal: the destination may not have been put back yet."""
        if error not in _MAY_COME_BACK:
            return False
        return self.is_unsure or self.to_be_noted or self.age_ms < _PATIENCE_MS
