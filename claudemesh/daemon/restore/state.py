"""State of a restore of the broker: what is known of it now, and the conditions that show it.

The reconciler updates it at each link-up. The drain reads it before a row leaves or dies.
"""

from __future__ import annotations

from collections.abc import Callable

from claudemesh.daemon.outbox.done import Restore, WaitingOffers
from claudemesh.runtime.conditions import Conditions

_HOUR_MS = 3_600_000
# Time after a noticed restore in which a missing destination may still come back.
_PATIENCE_MS = 24 * _HOUR_MS
# Time for which lost sends are shown.
_LOST_SHOWN_MS = 72 * _HOUR_MS
_MAY_COME_BACK = frozenset({"destination_not_found", "topic_not_found"})
_UNCHECKED = "restore_check_failed"
_LOST = "sends_lost_by_broker"
_REFUSED = "reoffer_refused"


class RestoreState:
    """The noticed restore as in outbox.db, and the parts that are not on disk yet."""

    def __init__(
        self,
        lived_ms: Callable[[], int],
        conditions: Conditions,
        may_be_behind: Callable[[], bool] = lambda: False,
    ) -> None:
        """`lived_ms` returns host-lived time, `may_be_behind` whether the broker may know older keys only."""
        self.lived_ms = lived_ms
        self._may_be_behind = may_be_behind
        self._conditions = conditions
        self.noticed: Restore | None = None
        # A restore was noticed and is not on disk yet.
        self.to_be_noted = False
        # A link was opened, and no comparison has finished since.
        self.is_unsure = False
        # The broker of this link has told of the newest done sends. No other send leaves before.
        self.is_asked = False
        self._on_asked: Callable[[], None] = lambda: None
        self._on_went_back: Callable[[], None] = lambda: None

    def on_asked(self, listener: Callable[[], None]) -> None:
        """Set the function to call when sends may leave on a link."""
        self._on_asked = listener

    def on_went_back(self, listener: Callable[[], None]) -> None:
        """Set the function to call when the broker's database was found to have gone back."""
        self._on_went_back = listener

    def went_back(self) -> None:
        """Note that the broker's database has gone back."""
        self.to_be_noted = True
        self._on_went_back()

    def asked(self) -> None:
        """Note that the broker of this link has told of the newest done sends."""
        self.is_asked = True
        self._on_asked()

    def may_come_back(self, error: str) -> bool:
        """Whether a restore may have caused a refusal: the destination may not have been put back yet."""
        if error not in _MAY_COME_BACK:
            return False
        if self.is_unsure or self.to_be_noted or self._age_ms() < _PATIENCE_MS:
            return True
        # A rotation that the broker has lost is put back by the daemon of its member.
        return error == "destination_not_found" and self._may_be_behind()

    def show_unchecked(self, error: Exception) -> None:
        """Show that the comparison with the broker has failed."""
        self._conditions.begin(
            _UNCHECKED,
            f"The check whether the broker still has all accepted sends has failed ({error}). It is "
            "repeated. Sends are kept and leave when it has succeeded; deliveries continue.",
        )

    def end_unchecked(self) -> None:
        """End that condition."""
        self._conditions.end(_UNCHECKED)

    def show_lost(self) -> None:
        """Show for three days that sends are lost for good."""
        noticed = self.noticed
        if noticed is None or not noticed.lost or self._age_ms() >= _LOST_SHOWN_MS:
            self._conditions.end(_LOST)
            return
        self._conditions.begin(
            _LOST,
            f"The broker's database was restored from an older copy, and {noticed.lost} sends that it had "
            "accepted cannot be offered again, because their payloads were no longer kept here. `claudemesh "
            "daemon outbox list` shows them with last_error forgotten_by_broker. Send the important ones "
            "again.",
        )

    def show_waiting(self, waiting: WaitingOffers) -> None:
        """Show the sends that the broker has lost and still refuses."""
        if not waiting.refused:
            self._conditions.end(_REFUSED)
            return
        self._conditions.begin(
            _REFUSED,
            f"The broker's database was restored from an older copy, and it refuses {waiting.refused} of "
            f"the sends that it has lost (for one, {waiting.error}). They are offered again until their "
            "recipients have come back. `claudemesh daemon outbox prune --confirm` gives them up.",
        )

    def _age_ms(self) -> float:
        return float("inf") if self.noticed is None else self.lived_ms() - self.noticed.noticed_ms
