"""The rows in flight on the present link: the order in which they leave, their deadline, and their isolation.

A row is in the window from its take until it is answered, overdue or lost with the link. Plain data, no I/O.
Rows leave in the order in which they were taken, which is priority and age, over lost links too.

Isolation: when the broker closes the link with 1009 (a frame that it does not take), every unanswered row
that had left is suspect; when a link dies otherwise right after a row left, that row is suspect the second
time. A suspect keeps its place and leaves alone: nothing else is in flight, and the rows behind it wait, so
that the next close names the culprit. The answer to a suspect by size clears all that are not larger. A
second 1009 is the suspect's own, and it dies of it. A row that has ended the link otherwise while it was
alone, twice, is put off, and from then on others overtake it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from claudemesh.daemon.outbox.types import TakenRow

TOO_BIG = 1009
# A link that dies this soon after a row has left may have died of that row.
_RIGHT_AFTER_S = 5.0
_LOSSES = 2
_LOSSES_ALONE = 2
# Rows that an operator retires meanwhile are never cleared; forgetting an old suspicion costs one more link.
_REMEMBERED = 4096


@dataclass(slots=True)
class _Suspicion:
    losses: int
    by_size: bool = False
    # How often the link died right after this row had left alone.
    alone: int = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """The rows of a link that has gone.

    `again` may leave at once, `later` after a backoff; the broker does not take the frame of `culprit`.
    """

    again: Sequence[TakenRow] = ()
    later: Sequence[TakenRow] = ()
    culprit: TakenRow | None = None


class Window:
    """The rows in flight."""

    def __init__(self) -> None:
        self._queue: deque[TakenRow] = deque()
        self._sent: dict[str, tuple[TakenRow, float]] = {}
        self._alone: str | None = None
        # How many links have been lost.
        self.losses = 0
        self._suspicions: dict[str, _Suspicion] = {}

    def __len__(self) -> int:
        return len(self._queue) + len(self._sent)

    @property
    def isolating(self) -> bool:
        """Whether suspects wait to leave alone: until they have, no further rows are taken."""
        return self._alone is not None or (bool(self._suspicions) and any(map(self._is_suspect, self._queue)))

    def take(self, rows: Iterable[TakenRow]) -> None:
        """Take rows that are `inflight` on disk, in the order in which they are to leave."""
        self._queue.extend(rows)

    def next(self, now_s: float) -> TakenRow | None:
        """Return the row to hand to the link now, and count it as sent; None while all must wait."""
        if self._alone is not None or not self._queue:
            return None
        if self._is_suspect(self._queue[0]):
            if self._sent:
                return None
            self._alone = self._queue[0].id
        row = self._queue.popleft()
        self._sent[row.id] = (row, now_s)
        return row

    def answered(self, row_id: str) -> TakenRow | None:
        """Return the row that the broker has answered, None when it is not in flight."""
        found = self._sent.pop(row_id, None)
        if found is None:
            return None
        row, _ = found
        self._release(row_id)
        suspicion = self._suspicions.pop(row_id, None)
        if suspicion is not None and suspicion.by_size:
            self._clear_up_to(len(row.payload))
        return row

    def overdue(self, now_s: float, deadline_s: float) -> list[TakenRow]:
        """Remove and return the rows that have waited for an answer for too long."""
        late = []
        for row, sent_s in self._sent.values():
            if now_s - sent_s < deadline_s:
                break  # they stand in the order in which they left
            late.append(row)
        for row in late:
            del self._sent[row.id]
            self._release(row.id)
        return late

    def first_sent_s(self) -> float | None:
        """Return when the row left that has waited longest for its answer."""
        return next((sent_s for _, sent_s in self._sent.values()), None)

    def lost(self, close_code: int, now_s: float) -> Lost:
        """Empty the window: the link has gone. `close_code` is the broker's, 0 when it sent none."""
        culprit: TakenRow | None = None
        again, later = list[TakenRow](), list[TakenRow]()
        for row, sent_s in self._sent.values():
            if close_code == TOO_BIG and self._alone == row.id and self._is_by_size(row):
                culprit = row
                self._suspicions.pop(row.id)
                continue
            self._suspect(row, close_code, now_s - sent_s)
            (later if self._gives_way(row) else again).append(row)
        again += self._queue
        self._queue.clear()
        self._sent.clear()
        self._alone = None
        self.losses += 1
        return Lost(again, later, culprit)

    def _suspect(self, row: TakenRow, close_code: int, age_s: float) -> None:
        if close_code != TOO_BIG and age_s > _RIGHT_AFTER_S:
            return
        suspicion = self._suspicions.setdefault(row.id, _Suspicion(0))
        suspicion.losses = _LOSSES if close_code == TOO_BIG else suspicion.losses + 1
        suspicion.by_size = close_code == TOO_BIG
        suspicion.alone += close_code != TOO_BIG and self._alone == row.id
        while len(self._suspicions) > _REMEMBERED:
            del self._suspicions[next(iter(self._suspicions))]

    def _gives_way(self, row: TakenRow) -> bool:
        suspicion = self._suspicions.get(row.id)
        return suspicion is not None and suspicion.alone >= _LOSSES_ALONE

    def _is_suspect(self, row: TakenRow) -> bool:
        suspicion = self._suspicions.get(row.id)
        return suspicion is not None and suspicion.losses >= _LOSSES

    def _is_by_size(self, row: TakenRow) -> bool:
        suspicion = self._suspicions.get(row.id)
        return suspicion is not None and suspicion.by_size

    def _release(self, row_id: str) -> None:
        if self._alone == row_id:
            self._alone = None

    def _clear_up_to(self, size: int) -> None:
        """The broker takes a frame of this size, so it takes the smaller ones too."""
        for row in self._queue:
            if len(row.payload) <= size and self._is_by_size(row):
                del self._suspicions[row.id]
