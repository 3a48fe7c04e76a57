"""Deliveries on one connection: the window, live pushes, reading behind, acks (broker.md, Delivering).

`Flow` decides and never waits; `Delivery` does what it says. What is owed to a member is either
unacknowledged on the connection, in the flow's memory, or will be read from the store: a wake-up
cannot get lost, because the flow knows when it no longer has the whole picture and reads again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import orjson

from claudemesh.broker.degraded import Degraded
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.outgoing import Outgoing
from claudemesh.broker.settings import Limits
from claudemesh.broker.store.base import Ack, DueDelivery, Store
from claudemesh.runtime.aside import Slices
from claudemesh.runtime.batching import Batcher, Overloaded
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.services import TaskOwner

PRIORITIES = 3
READ_ROWS = 64
_MEMORY_ROWS = 1024
_MEMORY_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Push:
    """One delivery: all of the frame but the start is shared by every recipient of the message."""

    delivery_id: int
    priority: int
    tail: str

    def frame(self) -> str:
        """Return the `deliver` frame."""
        return f'{{"type":"deliver","delivery_id":{self.delivery_id},{self.tail}'


def deliver_tail(
    *,
    broker_message_id: str,
    history_id: int,
    sender_member_id: str,
    sender_name: str,
    sender_pubkey: str,
    accepted_at: int,
    envelope: bytes,
) -> str:
    """Return a `deliver` frame from behind its delivery_id on; the stored envelope goes in as it is."""
    rest = {
        "broker_message_id": broker_message_id,
        "history_id": history_id,
        "sender": {"member_id": sender_member_id, "name": sender_name, "pubkey": sender_pubkey},
        "accepted_at": accepted_at,
        "envelope": orjson.Fragment(envelope),
    }
    return orjson.dumps(rest)[1:].decode()


def push_of(row: DueDelivery) -> Push:
    """Make a push of a row read from the store."""
    tail = deliver_tail(
        broker_message_id=row.broker_message_id,
        history_id=row.history_id,
        sender_member_id=row.sender_member_id,
        sender_name=row.sender_name,
        sender_pubkey=row.sender_pubkey,
        accepted_at=row.accepted_at,
        envelope=row.envelope,
    )
    return Push(row.delivery_id, row.priority, tail)


class Flow:
    """Which deliveries go out on a connection, and when to read more. Never waits.

    At most `window` deliveries are unacknowledged. What is pushed beyond that waits in memory, up
    to 1024 rows and 4 MiB; past that the memory is dropped and the store read again later.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._unacked: set[int] = set()
        self._acking: set[int] = set()
        self._queued: set[int] = set()
        self._lanes: tuple[deque[Push], ...] = tuple(deque() for _ in range(PRIORITIES))
        self._queued_bytes = 0
        self._late: list[Push] = []
        self._opened = False
        self._reading = False
        # Whether everything that is owed and not acknowledged is in `_unacked` or in memory.
        self._caught_up = False
        # Whether something happened during a read that it may have missed.
        self._stale = False

    def __repr__(self) -> str:
        state = "reading" if self._reading else "caught up" if self._caught_up else "behind"
        return f"<Flow {state}: {len(self._unacked)} unacked, {len(self._queued)} queued>"

    @property
    def is_behind(self) -> bool:
        """Whether the store will be read again anyhow."""
        return self._reading or not self._caught_up

    @property
    def unacked(self) -> int:
        """How many deliveries are sent and not acknowledged."""
        return len(self._unacked)

    def knows(self, delivery_id: int) -> bool:
        """Whether a delivery is on its way, waits here, or is being acknowledged."""
        return delivery_id in self._unacked or delivery_id in self._queued or delivery_id in self._acking

    @property
    def acking(self) -> int:
        """How many acknowledgements are on their way to the store."""
        return len(self._acking)

    def open(self) -> None:
        """Let deliveries begin; what was owed before is read first."""
        self._opened = True

    def offer(self, push: Push) -> None:
        """Note a delivery that has just been committed."""
        if self._reading:
            # The read may or may not see it; kept, so that a busy sender cannot keep us behind for ever.
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
        for lane in self._lanes:
            if lane:
                push = lane.popleft()
                self._queued.discard(push.delivery_id)
                self._queued_bytes -= len(push.tail)
                self._unacked.add(push.delivery_id)
                return push
        return None

    def plan_read(self) -> frozenset[int] | None:
        """Return the ids that a read must leave out, and count as reading; None when there is no need."""
        if not self._opened or self._caught_up or self._reading:
            return None
        if self._queued or len(self._unacked) >= self._window:
            return None
        self._reading = True
        self._stale = False
        return frozenset(self._unacked | self._acking)

    def loaded(self, pushes: Sequence[Push], complete: bool) -> None:
        """Take what a read found; `complete` says that there was nothing beyond it."""
        self._reading = False
        self._caught_up = complete and not self._stale
        late, self._late = self._late, []
        for push in pushes:
            self._remember(push, bounded=False)
        if self._caught_up:
            for push in late:
                self._remember(push)

    def read_failed(self) -> None:
        """Note that a read brought nothing; the next `plan_read` asks again."""
        self._reading = False
        self._late.clear()

    def distrust(self) -> None:
        """Something may have been committed that nobody told of: read again, also behind a read under way."""
        self._caught_up = False
        self._stale = True

    def acknowledge(self, delivery_ids: Iterable[int]) -> None:
        """Free the window; until it is settled no read brings these rows back."""
        for delivery_id in delivery_ids:
            self._unacked.discard(delivery_id)
            self._acking.add(delivery_id)

    def settle(self, delivery_ids: Iterable[int], *, committed: bool) -> None:
        """Note what became of acknowledgements; those that failed are read and sent again."""
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
        self._lanes[push.priority].append(push)
        self._queued.add(identity)
        self._queued_bytes += len(push.tail)

    def _forget(self) -> None:
        for lane in self._lanes:
            lane.clear()
        self._queued.clear()
        self._queued_bytes = 0
        self._caught_up = False


class Delivery:
    """One connection's deliveries: sends what the flow decides, reads when it asks, hands acks on."""

    def __init__(
        self,
        *,
        store: Store,
        acks: Batcher[Ack, None],
        outgoing: Outgoing,
        metrics: BrokerMetrics,
        degraded: Degraded,
        limits: Limits,
        mesh_id: str,
        member_id: str,
    ) -> None:
        self.flow = Flow(limits.window)
        self._store = store
        self._acks = acks
        self._outgoing = outgoing
        self._metrics = metrics
        self._degraded = degraded
        self._limits = limits
        self._mesh_id = mesh_id
        self._member_id = member_id
        self._tasks = TaskOwner()
        self._closed = False
        # Set once nothing new goes out: called when everything that went out is acknowledged.
        self._on_settled: Callable[[], None] | None = None

    def open(self) -> None:
        """Begin: first what is owed, then live."""
        self.flow.open()
        self.pump()

    def push(self, push: Push) -> None:
        """Deliver what has just been committed."""
        self.flow.offer(push)
        self.pump()

    def refresh(self) -> None:
        """Look into the store for what was not told."""
        self.flow.distrust()
        self.pump()

    def pump(self) -> None:
        """Send what may be sent now, and read on when the flow is behind."""
        if self._closed or self._on_settled is not None:
            return
        before = self.flow.unacked
        while self._outgoing.has_room:
            push = self.flow.take()
            if push is None:
                break
            failpoint("p1")
            self._outgoing.put(push.frame())
        sent = self.flow.unacked - before
        if sent:
            self._metrics.deliveries.inc(sent)
            self._metrics.unacknowledged.inc(sent)
        exclude = self.flow.plan_read()
        if exclude is not None:
            self._tasks.start(self._read(exclude), "delivery_read")

    def acknowledge(self, delivery_ids: tuple[int, ...]) -> asyncio.Future[None] | None:
        """Hand an ack to the store and free the window; the future ends when its fate is known."""
        failpoint("p2")
        before = self.flow.unacked
        self.flow.acknowledge(delivery_ids)
        self._metrics.unacknowledged.dec(before - self.flow.unacked)
        try:
            future = self._acks.submit(Ack(self._mesh_id, self._member_id, delivery_ids))
        except Overloaded:
            self._settled(delivery_ids, False)
            return None
        future.add_done_callback(partial(self._written, delivery_ids))
        self.pump()
        if self._on_settled is not None and not self.flow.unacked:
            self._on_settled()
        return future

    def pause(self, on_settled: Callable[[], None]) -> None:
        """Send nothing more, and call this as soon as everything that was sent is acknowledged."""
        self._on_settled = on_settled
        if not self.flow.unacked:
            on_settled()

    async def close(self) -> None:
        """Stop reading; what is unacknowledged stays owed."""
        self._closed = True
        self._metrics.unacknowledged.dec(self.flow.unacked)
        await self._tasks.stop()

    def _written(self, delivery_ids: tuple[int, ...], done: asyncio.Future[None]) -> None:
        error = done.exception()
        if error is not None:
            self._degraded.failed("acknowledge", error)
        self._settled(delivery_ids, error is None)

    def _settled(self, delivery_ids: tuple[int, ...], committed: bool) -> None:
        self.flow.settle(delivery_ids, committed=committed)
        if committed:
            self.pump()
        elif not self._closed:
            self._tasks.start(self._pump_later(), "delivery_retry")

    async def _pump_later(self) -> None:
        await asyncio.sleep(self._limits.retry_s)
        self.pump()

    async def _read(self, exclude: frozenset[int]) -> None:
        try:
            rows = await self._store.deliveries_due(
                self._mesh_id, self._member_id, exclude=exclude, limit=READ_ROWS
            )
        except Exception as error:
            # Whatever it is: a flow that waits for a read that died would deliver nothing more.
            self._degraded.failed("deliveries", error)
            await asyncio.sleep(self._limits.retry_s)
            self.flow.read_failed()
        else:
            pushes, slices = [], Slices()
            for row in rows:
                await slices.rest()
                pushes.append(push_of(row))
            self.flow.loaded(pushes, complete=len(rows) < READ_ROWS)
        self.pump()
