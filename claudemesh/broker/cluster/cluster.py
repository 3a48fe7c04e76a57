"""Signals between brokers on one database: wake-ups, news, and connections that have to close.

Nothing here is needed for a message to arrive: it is in the database. A signal only makes it arrive at once,
and a sweep every few seconds finds what no signal told of. An embedded broker is alone, and all of this is
local then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import orjson

from claudemesh.broker.cluster.failover import may_have_gone_back
from claudemesh.broker.connections.clone_policy import Verdict, judge
from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.degraded import Degraded
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.presence.announcer import Announcer
from claudemesh.broker.settings import Limits
from claudemesh.broker.state import BrokerState
from claudemesh.broker.store.protocol import ClusterStore
from claudemesh.broker.store.types import Lease, Life, Mesh, PresenceRow
from claudemesh.protocol import CloseCode
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.batching import Batcher, Overloaded
from claudemesh.runtime.clock import OffsetClock
from claudemesh.runtime.lived import LivedClock
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import OnCrash, TaskOwner, repeat, supervise

log = get_logger("broker.cluster")

# A signal has less than 8000 bytes; a member's id in JSON has 39.
_IDS_PER_SIGNAL = 180
_IDS_BESIDE_DATA = 100
# An accept that takes longer has been given up by the database.
_LATEST_COMMIT_S = 30.0
_BACKOFF = Backoff(initial_s=0.2, cap_s=5)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A member's connections on other brokers when one more came here."""

    rows: tuple[PresenceRow, ...] = ()
    others: int = 0

    def to_replace(self, verdict: Verdict, instance_id: str) -> tuple[PresenceRow, ...]:
        """Return those that have to go: all, or what is left of the same daemon's broken connection."""
        if verdict is Verdict.REPLACE:
            return self.rows
        return tuple(row for row in self.rows if row.instance_id == instance_id)


class Cluster:
    """This broker among others. With `shared` None there are none."""

    def __init__(
        self,
        *,
        shared: ClusterStore | None,
        hub: Hub,
        announcer: Announcer,
        state: BrokerState,
        clock: OffsetClock,
        lived: LivedClock,
        metrics: BrokerMetrics,
        degraded: Degraded,
        limits: Limits,
        broker_id: str,
        on_crash: OnCrash,
    ) -> None:
        self._shared = shared
        self._hub = hub
        self._announcer = announcer
        self._state = state
        self._clock = clock
        self._lived = lived
        self._metrics = metrics
        self._degraded = degraded
        self._limits = limits
        self._broker_id = broker_id
        self._waking: dict[str, set[str]] = {}
        self._flushing = False
        self._signals: Batcher[str, None] = Batcher(self._send)
        self._newest: deque[tuple[float, int]] = deque()
        self._life: Life | None = None
        self._tasks = TaskOwner(on_crash)
        # Told of queues in which there is something, and of each sweep.
        self.on_queue: Callable[[str, str], None] = lambda mesh_id, queue: None
        self.on_sweep: Callable[[], Awaitable[None]] = _nothing
        # Told of meshes whose member list has changed.
        self.on_directory: Callable[[str], None] = lambda mesh_id: None
        # Whether another broker has been heard or seen; until then no wake-up is needed.
        self._has_company = False

    @property
    def is_shared(self) -> bool:
        """Whether other brokers may use the same data."""
        return self._shared is not None

    async def start(self) -> None:
        """Begin to listen and to look."""
        if self._shared is None:
            return
        shared = self._shared
        self._announcer.say = self._say_presence
        self._announcer.ask = lambda mesh_ids: shared.leases(mesh_ids, self._lived.now_ms())
        await self._look(shared)
        listening = supervise(
            partial(shared.listen, self._hear, self._resumed), "listen", _BACKOFF, self._degraded
        )
        sweeping = repeat(lambda: self._look(shared), self._limits.sweep_s, "sweep", _BACKOFF, self._degraded)
        self._tasks.start(listening, "cluster_listen")
        self._tasks.start(sweeping, "cluster_sweep")
        self._say({"kind": "hello"})

    async def stop(self) -> None:
        """Say what is still to be said, and end."""
        await self._signals.close()
        await self._tasks.stop()

    # What this broker tells.

    def wake(self, mesh_id: str, member_ids: Iterable[str]) -> None:
        """Let other brokers deliver to these members what has just been committed."""
        if not self._has_company:
            return
        self._waking.setdefault(mesh_id, set()).update(member_ids)
        if not self._flushing:
            self._flushing = True
            self._tasks.start(self._flush(), "cluster_wake")

    def offer(self, mesh_id: str, queue: str) -> None:
        """Let other brokers look at a queue: no member here has room for its messages."""
        if self._has_company:
            self._say({"kind": "queue", "mesh": mesh_id, "queue": queue})

    def tell(
        self, mesh_id: str, event: str, data: Mapping[str, object], *, besides: str | None = None
    ) -> None:
        """Send an event to every open connection of a mesh, here and elsewhere."""
        self._hub.tell(mesh_id, event, data, besides=besides)
        self._say({"kind": "tell", "mesh": mesh_id, "event": event, "data": data, "besides": besides})

    def changed(self, mesh_id: str) -> None:
        """Let every broker tell what has changed in the member list of a mesh."""
        self.on_directory(mesh_id)
        self._say({"kind": "directory", "mesh": mesh_id})

    def tell_members(
        self, mesh_id: str, member_ids: Sequence[str], event: str, data: Mapping[str, object]
    ) -> None:
        """Send an event to the connections of these members only, here and elsewhere."""
        self._hub.tell_members(mesh_id, member_ids, event, data)
        for ids in _chunks(member_ids, _IDS_BESIDE_DATA):
            self._say({"kind": "tell_members", "mesh": mesh_id, "members": ids, "event": event, "data": data})

    def disconnect(self, mesh_id: str, member_id: str, code: CloseCode, detail: str) -> None:
        """Close every connection of a member, here and elsewhere."""
        self._hub.disconnect(mesh_id, member_id, code, detail)
        self._say(
            {"kind": "close", "mesh": mesh_id, "member": member_id, "code": int(code), "detail": detail}
        )

    async def claim(
        self, mesh: Mesh, member_id: str, connection_id: str, instance_id: str, *, here: int
    ) -> Elsewhere:
        """Take a lease for a connection that comes, unless the mesh's policy is against it.

        Two brokers that ask at once are told one after the other. `here` counts the member's other
        connections on this broker.
        """
        if self._shared is None:
            return Elsewhere()

        def count(rows: Sequence[PresenceRow]) -> int:
            return sum(row.instance_id != instance_id for row in rows)

        def admits(rows: Sequence[PresenceRow]) -> bool:
            policy, limit = mesh.clone_concurrency_policy, self._limits.connections_per_member
            return judge(policy, others=here + count(rows), limit=limit) is not Verdict.REFUSE

        now_ms = self._lived.now_ms()
        lease_until = now_ms + round(self._limits.lease_s * 1000)
        row = PresenceRow(
            connection_id, member_id, mesh.id, self._broker_id, now_ms, lease_until, instance_id
        )
        rows = await self._shared.acquire_lease(row, admits)
        return Elsewhere(tuple(rows), count(rows))

    def replace(self, rows: Sequence[PresenceRow]) -> None:
        """Let other brokers close connections that a newer one replaces."""
        for row in rows:
            self._say(
                {
                    "kind": "close",
                    "mesh": row.mesh_id,
                    "member": row.member_id,
                    "connection": row.connection_id,
                    "code": int(CloseCode.REPLACED),
                    "detail": "Another connection of this member was opened.",
                }
            )

    # Sending.

    def _say_presence(self, mesh_id: str, here: Sequence[Lease], gone: Sequence[str]) -> None:
        """Let other brokers know who came to this one, and who went."""
        groups = {
            "online": [lease.member_id for lease in here if lease.visible],
            "hidden": [lease.member_id for lease in here if not lease.visible],
            "gone": gone,
        }
        for group, member_ids in groups.items():
            for ids in _chunks(member_ids):
                self._say({"kind": "presence", "mesh": mesh_id, group: ids})

    def _say(self, signal: Mapping[str, object]) -> None:
        if self._shared is None:
            return
        text = orjson.dumps({"from": self._broker_id, **signal}).decode()
        try:
            self._signals.submit(text).add_done_callback(self._said)
        except Overloaded as error:
            self._degraded.failed("signal", error)

    def _said(self, future: asyncio.Future[None]) -> None:
        error = future.exception()
        if error is not None:
            self._degraded.failed("signal", error)

    async def _send(self, payloads: Sequence[str]) -> Sequence[None]:
        if self._shared is not None:
            await self._shared.signal(payloads)
        return [None] * len(payloads)

    async def _flush(self) -> None:
        """Send wake-ups. Members that are added during a signal go into the next one."""
        try:
            while self._waking:
                waking, self._waking = self._waking, {}
                payloads = [
                    orjson.dumps(
                        {"from": self._broker_id, "kind": "wake", "mesh": mesh_id, "members": ids}
                    ).decode()
                    for mesh_id, members in waking.items()
                    for ids in _chunks(members)
                ]
                try:
                    await self._send(payloads)
                except Exception as error:
                    # Sweeps of the other brokers find what they were not told of.
                    self._degraded.failed("signal", error)
        finally:
            self._flushing = False

    # Hearing.

    def _hear(self, payload: str) -> None:
        try:
            signal: dict[str, Any] = orjson.loads(payload)
            if signal["from"] != self._broker_id:
                self._has_company = True
                self._metrics.signals.labels(signal["kind"]).inc()
                self._obey(signal)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            # Of a newer broker perhaps; whatever it was, the sweep finds what matters.
            log.warning("signal_not_understood", error=repr(error))

    def _obey(self, signal: Mapping[str, Any]) -> None:
        kind = signal["kind"]
        if kind == "wake":
            for member_id in signal["members"]:
                for link in self._hub.links(signal["mesh"], member_id):
                    if link.is_open:
                        link.refresh()
        elif kind == "presence":
            origin = signal["from"]
            leases = [Lease(origin, member_id, True) for member_id in signal.get("online", ())]
            leases += [Lease(origin, member_id, False) for member_id in signal.get("hidden", ())]
            self._announcer.hear(signal["mesh"], origin, leases, signal.get("gone", ()))
        elif kind == "queue":
            self.on_queue(signal["mesh"], signal["queue"])
        elif kind == "directory":
            self.on_directory(signal["mesh"])
        elif kind == "tell":
            self._hub.tell(signal["mesh"], signal["event"], signal["data"], besides=signal["besides"])
        elif kind == "tell_members":
            self._hub.tell_members(signal["mesh"], signal["members"], signal["event"], signal["data"])
        elif kind == "close":
            only = signal.get("connection")
            if signal["code"] == CloseCode.REPLACED:
                self._announcer.moves(signal["mesh"], signal["from"], signal["member"])
            for link in self._hub.links(signal["mesh"], signal["member"]):
                if only in (None, link.connection_id):
                    link.close(CloseCode(signal["code"]), signal["detail"])

    def _resumed(self) -> None:
        """Signals may have been missed: every connection looks for itself."""
        self._hub.refresh()

    # Looking.

    async def _look(self, shared: ClusterStore) -> None:
        # One clock for all: leases and retention go by the database's.
        self._clock.follow(await shared.now_ms())
        await self._compare_epoch(shared)
        now_ms = self._lived.now_ms()
        await self._take_leases_again(shared, now_ms)
        await shared.expire(now_ms)
        await self._announcer.read()
        self._has_company = await shared.has_company(self._broker_id)
        here = {link.member_id: link.mesh_id for link in self._hub}
        await self._look_for_deliveries(shared, here)
        await self.on_sweep()
        for member_id in await shared.inactive(list(here)):
            self._hub.disconnect(
                here[member_id], member_id, CloseCode.REVOKED, "this member is no longer active"
            )

    async def _take_leases_again(self, shared: ClusterStore, now_ms: int) -> None:
        """A database that was away for long has let leases run out whose connections are still here."""
        links = {link.connection_id: link for link in self._hub if link.is_open}
        for connection_id in await shared.without_lease(list(links)):
            link = links[connection_id]
            row = PresenceRow(
                connection_id,
                link.member_id,
                link.mesh_id,
                self._broker_id,
                now_ms,
                now_ms + round(self._limits.lease_s * 1000),
                link.instance_id,
            )
            await shared.acquire_lease(row, lambda rows: True)

    async def _compare_epoch(self, shared: ClusterStore) -> None:
        """When the database was restored or failed over under us, daemons hear of it as they reconnect."""
        accepted = self._state.newest_history
        store_epoch, life = await shared.store_epoch(), await shared.life()
        before, self._life = self._life, life
        if store_epoch == self._state.store_epoch and not may_have_gone_back(before, life, accepted):
            return
        log.info("database_may_be_another", epoch_changed=store_epoch != self._state.store_epoch)
        self._state.store_epoch, self._state.newest_history = store_epoch, 0
        self._newest.clear()
        for link in self._hub:
            link.close(CloseCode.DRAINING, "The database was replaced. Connect again.")

    async def _look_for_deliveries(self, shared: ClusterStore, here: Mapping[str, str]) -> None:
        """Find what was committed elsewhere and not told: ids are given in order, but committed in any."""
        now = self._clock.monotonic()
        while len(self._newest) > 1 and now - self._newest[1][0] > _LATEST_COMMIT_S:
            self._newest.popleft()
        after = self._newest[0][1] if self._newest else None
        newest, rows = await shared.deliveries_since(after, list(here))
        self._newest.append((now, newest))
        for delivery_id, member_id in rows:
            for link in self._hub.links(here[member_id], member_id):
                if link.is_open and not link.knows(delivery_id):
                    self._metrics.wakeups_missed.inc()
                    link.refresh()


async def _nothing() -> None:
    """Do nothing after a sweep: the default of `on_sweep`."""


def _chunks(ids: Collection[str], size: int = _IDS_PER_SIGNAL) -> Iterator[list[str]]:
    rest = iter(ids)
    while chunk := list(islice(rest, size)):
        yield chunk
