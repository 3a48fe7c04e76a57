"""Deliveries on one connection, at least once each (docs/spec/broker.md, Delivering).

`Flow` decides and `Delivery` acts. A delivery owed to a member is either unacknowledged on the connection, in
the memory of the flow, or will be read from the store. A lost wake-up loses no delivery, because the flow
knows when its memory is incomplete, and reads again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from claudemesh.broker.connections.open_connection import Push
from claudemesh.broker.connections.outbound import OutboundQueue
from claudemesh.broker.environment import Environment
from claudemesh.broker.messages.flow import Flow
from claudemesh.broker.store.facets import MessageStore
from claudemesh.broker.store.types import Ack, DueDelivery
from claudemesh.protocol.frames import (
    Deliver,
    Delivers,
    DeliverySender,
    batches_of,
    deliver_tail,
    encode_delivers,
)
from claudemesh.protocol.session import Session
from claudemesh.protocol.wire import BATCH_BYTES, BATCH_ITEMS
from claudemesh.runtime.aside import Slices
from claudemesh.runtime.batching import Batcher, Overloaded
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.services import TaskOwner

READ_ROWS = 64


def push_of(row: DueDelivery) -> Push:
    """Make a push of a row read from the store."""
    tail = deliver_tail(
        broker_message_id=row.broker_message_id,
        history_id=row.history_id,
        sender=DeliverySender(row.sender_member_id, row.sender_name, row.sender_pubkey),
        accepted_at=row.accepted_at,
        envelope=row.envelope,
    )
    return Push(row.delivery_id, row.priority, tail)


class Delivery:
    """Sends what the flow decides, reads when it asks, and passes acknowledgements to the store."""

    def __init__(
        self,
        *,
        store: MessageStore,
        acks: Batcher[Ack, None],
        outbound: OutboundQueue,
        session: Session,
        env: Environment,
        mesh_id: str,
        member_id: str,
    ) -> None:
        self.flow = Flow(env.limits.window)
        self._store = store
        self._acks = acks
        self._outbound = outbound
        self._session = session
        self._env = env
        self._mesh_id = mesh_id
        self._member_id = member_id
        self._tasks = TaskOwner()
        self._closed = False
        # Whether the peer takes frames with several items, and whether one of them is about to be written.
        self._in_batches = self._is_pumping = False
        # Set while paused: called when every sent delivery is acknowledged.
        self._on_settled: Callable[[], None] | None = None

    def open(self, *, in_batches: bool = False) -> None:
        """Begin with the deliveries that are owed, then push live.

        `in_batches`: deliveries that are ready together leave in one frame.
        """
        self._in_batches = in_batches
        self.flow.open()
        self.pump()

    def push(self, push: Push) -> None:
        """Deliver what has just been committed."""
        self.flow.offer(push)
        if not self._in_batches:
            self.pump()
        elif not self._is_pumping:
            # Behind the other pushes of this turn of the loop.
            self._is_pumping = True
            asyncio.get_running_loop().call_soon(self._pump_pushed)

    def refresh(self) -> None:
        """Read the deliveries that were committed without a push."""
        self.flow.distrust()
        self.pump()

    def pump(self) -> None:
        """Send what the window and the outbound queue allow, and read when the flow is behind."""
        if self._closed or self._on_settled is not None:
            return
        before = self.flow.unacked
        while self._outbound.has_room:
            pushes = self._next()
            if not pushes:
                break
            for batch in batches_of(pushes, lambda push: len(push.tail)):
                if len(batch) == 1:
                    self._session.send(Deliver)
                    self._outbound.put(batch[0].frame())
                else:
                    self._session.send(Delivers)
                    self._outbound.put(encode_delivers([(push.delivery_id, push.tail) for push in batch]))
        sent = self.flow.unacked - before
        if sent:
            self._env.metrics.deliveries.inc(sent)
            self._env.metrics.unacknowledged.inc(sent)
        exclude = self.flow.plan_read()
        if exclude is not None:
            self._tasks.start(self._read(exclude), "delivery_read")

    def acknowledge(self, delivery_ids: tuple[int, ...]) -> asyncio.Future[None] | None:
        """Free the window and pass an acknowledgement to the store; the future ends with its outcome."""
        failpoint("deliver.before_ack_commit")
        before = self.flow.unacked
        self.flow.acknowledge(delivery_ids)
        self._env.metrics.unacknowledged.dec(before - self.flow.unacked)
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
        """Send nothing more, and call `on_settled` as soon as every sent delivery is acknowledged."""
        self._on_settled = on_settled
        if not self.flow.unacked:
            on_settled()

    async def close(self) -> None:
        """Stop reading. Unacknowledged deliveries stay owed."""
        self._closed = True
        self._env.metrics.unacknowledged.dec(self.flow.unacked)
        await self._tasks.stop()

    def _pump_pushed(self) -> None:
        self._is_pumping = False
        self.pump()

    def _next(self) -> list[Push]:
        """Take the deliveries that are written next, to the end of a frame."""
        pushes, size = list[Push](), 0
        while len(pushes) < (BATCH_ITEMS if self._in_batches else 1) and size < BATCH_BYTES:
            push = self.flow.take()
            if push is None:
                break
            failpoint("deliver.before_push")
            pushes.append(push)
            size += len(push.tail)
        return pushes

    def _written(self, delivery_ids: tuple[int, ...], done: asyncio.Future[None]) -> None:
        error = done.exception()
        if error is not None:
            self._env.degraded.failed("acknowledge", error)
        self._settled(delivery_ids, error is None)

    def _settled(self, delivery_ids: tuple[int, ...], committed: bool) -> None:
        self.flow.settle(delivery_ids, committed=committed)
        if committed:
            self.pump()
        elif not self._closed:
            self._tasks.start(self._pump_later(), "delivery_retry")

    async def _pump_later(self) -> None:
        await asyncio.sleep(self._env.limits.retry_s)
        self.pump()

    async def _read(self, exclude: frozenset[int]) -> None:
        try:
            rows = await self._store.deliveries_due(
                self._mesh_id, self._member_id, exclude=exclude, limit=READ_ROWS
            )
        except Exception as error:
            # Any error counts: a flow that waits for a dead read would deliver nothing more.
            self._env.degraded.failed("deliveries", error)
            await asyncio.sleep(self._env.limits.retry_s)
            self.flow.read_failed()
        else:
            pushes, slices = [], Slices()
            for row in rows:
                await slices.rest()
                pushes.append(push_of(row))
            self.flow.loaded(pushes, complete=len(rows) < READ_ROWS)
        self.pump()
