"""Publishing: the fan-out of committed messages to connected recipients (docs/spec/broker.md, Delivering).

Pushes follow the commits in order, in a task of their own. A failed push does not make a committed send look
failed, and a message for ten thousand subscribers yields to the event loop in between.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from claudemesh.broker.cluster.signals import Signals
from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.connections.open_connection import Push
from claudemesh.broker.environment import Environment
from claudemesh.broker.messages.sender import Sender
from claudemesh.broker.store.types import Accepted, NewSend
from claudemesh.protocol import frames
from claudemesh.runtime.aside import Slices
from claudemesh.runtime.services import TaskOwner

# Two batches. Backpressure: while more publications wait, no batch is committed.
_MAX_WAITING: Final = 512


class Publication(NamedTuple):
    """One accepted send."""

    sender: Sender
    send: NewSend
    outcome: Accepted


class Publisher:
    """Pushes accepted sends to connected recipients, and wakes up other brokers for the rest."""

    def __init__(self, hub: Hub, signals: Signals, env: Environment) -> None:
        self._hub = hub
        self._signals = signals
        self._env = env
        self._waiting: deque[Publication] = deque()
        self._tasks = TaskOwner()
        self._room = asyncio.Event()
        self._room.set()
        self._running = False

    def publish(self, publications: Sequence[Publication]) -> None:
        """Take accepted sends in the order of their commits, without waiting."""
        self._waiting.extend(publications)
        if len(self._waiting) > _MAX_WAITING:
            self._room.clear()
        if not self._running:
            self._running = True
            self._tasks.start(self._run(), "publisher")

    async def room(self) -> None:
        """Return when another batch may be taken."""
        await self._room.wait()

    async def close(self) -> None:
        """Return when everything that was taken is pushed."""
        await self._tasks.join()

    async def _run(self) -> None:
        slices = Slices()
        try:
            while self._waiting:
                await slices.rest()
                try:
                    await self._push(self._waiting.popleft(), slices)
                except Exception as error:
                    self._env.degraded.failed("publish", error)
                if len(self._waiting) <= _MAX_WAITING:
                    self._room.set()
        finally:
            self._running = False
            self._room.set()

    async def _push(self, publication: Publication, slices: Slices) -> None:
        sender, send, outcome = publication
        away = self._hub.away(sender.mesh_id, (row.recipient_member_id for row in outcome.deliveries))
        if away:
            self._signals.publish_wakeup(sender.mesh_id, away)
        here = self._hub.online(sender.mesh_id)
        present = [row for row in outcome.deliveries if row.recipient_member_id in here]
        if not present:
            return
        tail = frames.deliver_tail(
            broker_message_id=send.broker_message_id,
            history_id=outcome.history_id,
            sender=frames.DeliverySender(sender.member_id, sender.name, sender.pubkey),
            accepted_at=outcome.accepted_at,
            envelope=send.envelope,
        )
        for row in present:
            await slices.rest()
            push = Push(row.delivery_id, send.priority, tail)
            self._hub.push(sender.mesh_id, row.recipient_member_id, push)
