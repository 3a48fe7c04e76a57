"""Window of rows in flight: the order in which they leave, their deadlines, and isolation of suspects.

A row is in the window from the turn that takes it until it is answered, overdue or lost with the link. Rows
leave in the order in which they were taken, by priority and age, also after a lost link. Plain data, no
I/O.

Isolation: when the broker closes the link with 1009 (it does not take a frame), every row that was sent and
not answered is a suspect. When the link is lost otherwise right after a row was sent, twice, that row is a
suspect. A suspect keeps its place and is sent alone, so that the next close identifies it: nothing else is
in flight, and the rows behind it wait. When a suspect by size is answered, all that are not larger are
cleared. A suspect that gets 1009 while alone becomes dead. A suspect that loses the link otherwise while
alone, twice, is retried after a backoff, and later rows overtake it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from msgspec import Struct

from claudemesh.daemon.outbox.types import TakenRow
from claudemesh.protocol.wire import BATCH_BYTES, BATCH_ITEMS

TOO_BIG = 1009
# A link that is lost this soon after a row was sent may have been lost because of it.
_RIGHT_AFTER_S = 5.0
_LOSSES = 2
_LOSSES_ALONE = 2
# Largest number of suspicions kept. A row that an operator retires is never cleared, so the oldest is
# forgotten.
_REMEMBERED = 4096


class _Suspicion(Struct):
    losses: int
    by_size: bool = False
    # Number of links lost right after this row was sent alone.
    alone: int = 0


class Lost(Struct, frozen=True):
    """The rows of a lost link.

    `again` may leave at once, `later` after a backoff. The broker does not take the frame of `culprit`.
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
        # Number of lost links.
        self.losses = 0
        self._suspicions: dict[str, _Suspicion] = {}

    def __len__(self) -> int:
        return len(self._queue) + len(self._sent)

    @property
    def isolating(self) -> bool:
        """Whether suspects wait to be sent alone. Until then no further rows are taken."""
        return self._alone is not None or (bool(self._suspicions) and any(map(self._is_suspect, self._queue)))

    def take(self, rows: Iterable[TakenRow]) -> None:
        """Take rows that are `inflight` on disk, in the order in which they are to leave."""
        self._queue.extend(rows)

    def next(self, now_s: float) -> TakenRow | None:
        """Return the row to send now and mark it as sent, or None while all must wait."""
        if self._alone is not None or not self._queue:
            return None
        if self._is_suspect(self._queue[0]):
            if self._sent:
                return None
            self._alone = self._queue[0].id
        row = self._queue.popleft()
        self._sent[row.id] = (row, now_s)
        return row

    def next_few(self, now_s: float) -> list[TakenRow]:
        """Return the rows to send now, up to as many as one frame takes.

        A row behind a large one is not marked as sent until that one has left: its deadline begins then.
        """
        rows, size = list[TakenRow](), 0
        while self._queue and len(rows) < BATCH_ITEMS:
            size += len(self._queue[0].payload)
            if rows and size > BATCH_BYTES:
                break
            row = self.next(now_s)
            if row is None:
                break
            rows.append(row)
        return rows

    def answered(self, row_id: str) -> TakenRow | None:
        """Remove and return the row that the broker has answered; None when it is not in flight."""
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
        """Remove and return the rows that have waited more than `deadline_s` for an answer."""
        late = []
        for row, sent_s in self._sent.values():
            if now_s - sent_s < deadline_s:
                break  # in the order in which they were sent
            late.append(row)
        for row in late:
            del self._sent[row.id]
            self._release(row.id)
        return late

    def first_sent_s(self) -> float | None:
        """Return when the row was sent that has waited longest for its answer, in monotonic seconds, or
        None."""
        return next((sent_s for _, sent_s in self._sent.values()), None)

    def lost(self, close_code: int, now_s: float) -> Lost:
        """Empty the window after the loss of the link. `close_code` is the broker's, 0 when it sent none."""
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
        """Clear suspects up to this size: the broker has taken a frame of `size` bytes."""
        for row in self._queue:
            if len(row.payload) <= size and self._is_by_size(row):
                del self._suspicions[row.id]
