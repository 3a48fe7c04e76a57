"""State of a restore of the broker: what is known of it now, and whether a refusal may pass because of it.

The reconciler writes it at each link-up; the drain asks it before a row dies.
"""

from __future__ import annotations

from collections.abc import Callable

from claudemesh.daemon.outbox.done import Restore

_HOUR_MS = 3_600_000
# So long after a restore was noticed, a destination that does not exist may still come back.
_PATIENCE_MS = 24 * _HOUR_MS
# So long is it shown that sends were lost for good.
_LOST_SHOWN_MS = 72 * _HOUR_MS
_MAY_COME_BACK = frozenset({"destination_not_found", "topic_not_found"})


class RestoreState:
    """The restore that was noticed, as outbox.db has it, and what is not on the disk yet."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        """`now_ms` is host-lived time."""
        self._now_ms = now_ms
        self.noticed: Restore | None = None
        # A restore was seen and is not on the disk yet.
        self.to_be_noted = False
        # A link came up, and no comparison has ended since.
        self.is_unsure = False

    @property
    def age_ms(self) -> float:
        """Host-lived milliseconds since the restore was noticed; infinite without one."""
        return float("inf") if self.noticed is None else self._now_ms() - self.noticed.noticed_ms

    @property
    def lost(self) -> int:
        """Sends that were lost for good, as long as that is shown."""
        return self.noticed.lost if self.noticed is not None and self.age_ms < _LOST_SHOWN_MS else 0

    def may_come_back(self, error: str) -> bool:
        """Tell whether a restore may have caused a refusal: the destination's host has yet to put it back."""
        if error not in _MAY_COME_BACK:
            return False
        return self.is_unsure or self.to_be_noted or self.age_ms < _PATIENCE_MS
