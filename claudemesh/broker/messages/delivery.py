"""Deliveries of one connection: window, pushes, reads, acks (docs/spec/broker.md, Delivering).

`Flow` decides and never waits; `Delivery` does what it says. What is owed to a member is either
unacknowledged on the connection, in the flow's memory, or will be read from the store: a wake-up
cannot get lost, because the flow knows when it no longer has the whole picture and reads again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from claudemesh.broker.connections.link import Push
from claudemesh.broker.connections.outbound import Outgoing
from claudemesh.broker.degraded import Degraded
from claudemesh.broker.messages.flow import Flow
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.settings import Limits
from claudemesh.broker.store.facets import MessageStore
from claudemesh.broker.store.types import Ack, DueDelivery
from claudemesh.protocol.frames import Deliver, DeliverySender, deliver_tail
from claudemesh.protocol.session import Session
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
    """One connection's deliveries: sends what the flow decides, reads when it asks, hands acks on."""

    def __init__(
        self,
        *,
        store: MessageStore,
        acks: Batcher[Ack, None],
        outgoing: Outgoing,
        session: Session,
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
        self._session = session
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
            failpoint("deliver.before_push")
            self._session.send(Deliver)
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
        failpoint("deliver.before_ack_commit")
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
