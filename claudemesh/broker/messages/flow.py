"""The flow of deliveries on one connection: window, live pushes, reading behind, acknowledgements. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from claudemesh.broker.connections.open_connection import Push

PRIORITIES = 3


_MEMORY_ROWS = 1024


_MEMORY_BYTES = 4 << 20


class Flow:
    """Decides which deliveries are sent on a connection, and when to read more. Never waits.

    At most `window` deliveries are unacknowledged (flow control). Pushes beyond that wait in memory, up to
    1024 rows and 4 MiB. Past that bound the memory is dropped, and the store is read again later.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._unacked: set[int] = set()
        self._acking: set[int] = set()
        self._queued: set[int] = set()
        # Made for the first push and dropped behind the last one: most connections are idle.
        self._lanes: list[deque[Push] | None] = [None] * PRIORITIES
        self._queued_bytes = 0
        self._late: list[Push] = []
        self._opened = False
        self._reading = False
        # Whether every owed delivery is in `_unacked`, `_acking` or in memory.
        self._caught_up = False
        # Whether something was committed during a read that the read may have missed.
        self._stale = False

    def __repr__(self) -> str:
        state = "reading" if self._reading else "caught up" if self._caught_up else "behind"
        return f"<Flow {state}: {len(self._unacked)} unacked, {len(self._queued)} queued>"

    @property
    def is_behind(self) -> bool:
        """Whether the store will be read again in any case."""
        return self._reading or not self._caught_up

    @property
    def unacked(self) -> int:
        """The number of deliveries that are sent and not acknowledged."""
        return len(self._unacked)

    def knows(self, delivery_id: int) -> bool:
        """Return whether a delivery is sent, waits in memory, or is being acknowledged."""
        return delivery_id in self._unacked or delivery_id in self._queued or delivery_id in self._acking

    @property
    def acking(self) -> int:
        """The number of acknowledgements on their way to the store."""
        return len(self._acking)

    def open(self) -> None:
        """Let deliveries begin. Those owed before are read first."""
        self._opened = True

    def offer(self, push: Push) -> None:
        """Take a delivery that has just been committed."""
        if self._reading:
            # The read may miss it. It is kept, so that a busy sender cannot keep this connection behind
            # forever.
            if len(self._late) < _MEMORY_ROWS:
                self._late.append(push)
            else:
                self._stale = True
        elif self._caught_up:
            self._remember(push)

    def take(self) -> Push | None:
        """Return the next delivery to send, or None when the window is full or nothing is in memory."""
        if len(self._unacked) >= self._window:
            return None
        for priority, lane in enumerate(self._lanes):
            if lane is not None:
                push = lane.popleft()
                if not lane:
                    self._lanes[priority] = None
                self._queued.discard(push.delivery_id)
                self._queued_bytes -= len(push.tail)
                self._unacked.add(push.delivery_id)
                return push
        return None

    def plan_read(self) -> frozenset[int] | None:
        """Begin a read: return the ids that it must exclude. None: no read is needed."""
        if not self._opened or self._caught_up or self._reading:
            return None
        if self._queued or len(self._unacked) >= self._window:
            return None
        self._reading = True
        self._stale = False
        return frozenset(self._unacked | self._acking)

    def loaded(self, pushes: Sequence[Push], complete: bool) -> None:
        """Take the result of a read; `complete` says that there was nothing beyond it."""
        self._reading = False
        self._caught_up = complete and not self._stale
        late, self._late = self._late, []
        for push in pushes:
            self._remember(push, bounded=False)
        if self._caught_up:
            for push in late:
                self._remember(push)

    def read_failed(self) -> None:
        """Note that a read failed. The next `plan_read` begins another one."""
        self._reading = False
        self._late.clear()

    def distrust(self) -> None:
        """Read again, also behind a read under way: a delivery may have been committed without a push."""
        self._caught_up = False
        self._stale = True

    def acknowledge(self, delivery_ids: Iterable[int]) -> None:
        """Free the window. Reads exclude these deliveries until they are settled."""
        for delivery_id in delivery_ids:
            self._unacked.discard(delivery_id)
            self._acking.add(delivery_id)

    def settle(self, delivery_ids: Iterable[int], *, committed: bool) -> None:
        """Note the outcome of acknowledgements. Those that failed are read and sent again."""
        self._acking.difference_update(delivery_ids)
        if not committed:
            self.distrust()

    def _remember(self, push: Push, *, bounded: bool = True) -> None:
        identity = push.delivery_id
        if identity in self._unacked or identity in self._queued or identity in self._acking:
            return
        if bounded and (len(self._queued) >= _MEMORY_ROWS or self._queued_bytes > _MEMORY_BYTES):
            self._forget()
            return
        lane = self._lanes[push.priority]
        if lane is None:
            lane = self._lanes[push.priority] = deque()
        lane.append(push)
        self._queued.add(identity)
        self._queued_bytes += len(push.tail)

    def _forget(self) -> None:
        self._lanes = [None] * PRIORITIES
        self._queued.clear()
        self._queued_bytes = 0
        self._caught_up = False
