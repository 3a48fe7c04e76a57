"""Presence events: the announcer tells the members of each mesh which members are online.

Changes are coalesced: an event follows a change after 50 ms, and the event before it after an interval that
grows with the number of connected members. Each event is encoded once for all recipients (fan-out). So a
change in a small mesh shows at once, and the work stays bounded when thousands of members come back together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice

from msgspec import Struct, field

from claudemesh.broker.cluster.signals import Signal, Signals, chunks
from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.connections.open_connection import OpenConnection
from claudemesh.broker.environment import Environment
from claudemesh.broker.presence.roster import Change, Roster
from claudemesh.broker.store.protocol import ClusterStore
from claudemesh.broker.store.types import Lease
from claudemesh.protocol.errors import CloseCode
from claudemesh.protocol.frames import encode_event
from claudemesh.runtime.services import TaskOwner

GATHER_S = 0.05
_LONGEST_S = 5.0
_IDS_PER_EVENT = 5000
# Frames that are queued before other tasks of the event loop run.
_AT_ONCE = 100
# Events about single members in one round, for daemons without the presence feature: more would fill their
# queues.
_SINGLE_EVENTS = 128

EVENT = "presence"


def interval_s(members: int, per_member_s: float) -> float:
    """Return the shortest time between two events to this many connected members."""
    return min(_LONGEST_S, max(GATHER_S, members * per_member_s))


def presence_events(change: Change, at_ms: int, *, whole: bool = False) -> list[str]:
    """Return the frames of a change, each with at most 5000 members.

    With `whole` the first frame says that members which no frame names are offline.
    """
    parts = [
        {"online": online, "offline": offline}
        for online, offline in (
            *((list(ids), []) for ids in _pages(change.online)),
            *(([], list(ids)) for ids in _pages(change.offline)),
        )
    ]
    if len(change.online) + len(change.offline) <= _IDS_PER_EVENT and (change or whole):
        parts = [{"online": list(change.online), "offline": list(change.offline)}]
    return [
        encode_event(EVENT, {"whole": whole and number == 0, "at": at_ms, **part})
        for number, part in enumerate(parts)
    ]


class _Mesh(Struct):
    """The roster of one mesh, and what is due to be sent."""

    roster: Roster
    newcomers: list[OpenConnection] = field(default_factory=list)
    # The cards of members connected here, and changes by member, for daemons without the presence feature.
    cards: dict[str, Mapping[str, object]] = field(default_factory=dict)
    singles: dict[str, bool] = field(default_factory=dict)
    announced_at: float = float("-inf")
    timer: asyncio.TimerHandle | None = None
    is_announcing: bool = False
    is_publishing: bool = False
    # Whether the leases at other brokers have been read.
    is_read: bool = False


class Announcer:
    """Keeps a roster for each mesh with members here, and announces its changes to them.

    Among several brokers it publishes the changes of this broker as signals and applies those of the others.
    `shared` is None for an embedded broker.
    """

    def __init__(self, hub: Hub, signals: Signals, shared: ClusterStore | None, env: Environment) -> None:
        self._hub = hub
        self._signals = signals
        self._shared = shared
        self._env = env
        self._meshes: dict[str, _Mesh] = {}
        self._tasks = TaskOwner(env.on_crash)
        signals.subscribe("presence", self._on_presence)
        signals.subscribe("close", self._on_close)

    async def stop(self) -> None:
        """Announce nothing more."""
        for mesh in self._meshes.values():
            if mesh.timer is not None:
                mesh.timer.cancel()
        await self._tasks.stop()

    def online(self, mesh_id: str) -> Set[str]:
        """Return the members that others see as online."""
        mesh = self._meshes.get(mesh_id)
        return frozenset() if mesh is None else mesh.roster.online()

    # Changes at this broker.

    def arrived(self, connection: OpenConnection, card: Mapping[str, object], *, visible: bool) -> None:
        """Note an open connection: it is sent the members that are online, and the others are told of it."""
        mesh = self._meshes.get(connection.mesh_id)
        if mesh is None:
            mesh = self._meshes[connection.mesh_id] = _Mesh(
                Roster(self._env.broker_id), is_read=self._shared is None
            )
        mesh.roster.arrive(connection.member_id, visible=visible)
        mesh.cards[connection.member_id] = card
        mesh.newcomers.append(connection)
        self._changed(connection.mesh_id, mesh)

    def left(self, mesh_id: str, member_id: str) -> None:
        """Note that the last connection of a member here has ended."""
        mesh = self._meshes.get(mesh_id)
        if mesh is not None:
            mesh.roster.leave(member_id)
            self._changed(mesh_id, mesh)

    def show(self, mesh_id: str, member_id: str, *, visible: bool) -> None:
        """Note whether a member that is connected here wants to be visible."""
        mesh = self._meshes.get(mesh_id)
        if mesh is not None:
            mesh.roster.show(member_id, visible=visible)
            self._changed(mesh_id, mesh)

    # Changes at other brokers.

    def _on_presence(self, signal: Signal) -> None:
        mesh_id, origin = signal["mesh"], signal["from"]
        mesh = self._meshes.get(mesh_id)
        if mesh is not None:
            leases = [Lease(origin, member_id, True) for member_id in signal.get("online", ())]
            leases += [Lease(origin, member_id, False) for member_id in signal.get("hidden", ())]
            mesh.roster.apply(origin, leases, signal.get("gone", ()))
            self._changed(mesh_id, mesh)

    def _on_close(self, signal: Signal) -> None:
        """Note that a member's connection here is replaced by one at another broker."""
        mesh = self._meshes.get(signal["mesh"])
        if mesh is not None and signal["code"] == CloseCode.REPLACED:
            mesh.roster.move(signal["from"], signal["member"])

    async def read(self) -> None:
        """Read the leases of all meshes: a broker that died sends no signal. Raises `StorageError`."""
        await self._read(self._meshes)

    async def _read(self, mesh_ids: Iterable[str]) -> None:
        if self._shared is None:
            return
        meshes = {mesh_id: self._meshes[mesh_id] for mesh_id in mesh_ids}
        for mesh in meshes.values():
            mesh.roster.begin_read()
        found = await self._shared.leases(meshes, self._env.lived.now_ms()) if meshes else {}
        for mesh_id, mesh in meshes.items():
            mesh.roster.read(found.get(mesh_id, ()))
            mesh.is_read = True
            self._changed(mesh_id, mesh)

    # Sending.

    def _changed(self, mesh_id: str, mesh: _Mesh) -> None:
        if self._shared is not None and mesh.roster.has_unpublished and not mesh.is_publishing:
            mesh.is_publishing = True
            asyncio.get_running_loop().call_later(GATHER_S, self._publish, mesh_id, mesh)
        self._plan(mesh_id, mesh)

    def _publish(self, mesh_id: str, mesh: _Mesh) -> None:
        mesh.is_publishing = False
        here, gone = mesh.roster.take_unpublished()
        groups = {
            "online": [lease.member_id for lease in here if lease.visible],
            "hidden": [lease.member_id for lease in here if not lease.visible],
            "gone": gone,
        }
        for group, member_ids in groups.items():
            for ids in chunks(member_ids):
                self._signals.publish("presence", mesh=mesh_id, **{group: ids})
        self._forget_if_empty(mesh_id, mesh)

    def _plan(self, mesh_id: str, mesh: _Mesh) -> None:
        if mesh.timer is not None or mesh.is_announcing:
            return
        if not (mesh.roster.has_unannounced or mesh.newcomers or mesh.singles):
            self._forget_if_empty(mesh_id, mesh)
            return
        loop = asyncio.get_running_loop()
        due_in_s = (
            mesh.announced_at + interval_s(self._hub.size(mesh_id), self._env.limits.presence_s) - loop.time()
        )
        mesh.timer = loop.call_later(max(GATHER_S, due_in_s), self._begin, mesh_id, mesh)

    def _begin(self, mesh_id: str, mesh: _Mesh) -> None:
        mesh.timer = None
        mesh.is_announcing = True
        self._tasks.start(self._announce(mesh_id, mesh), "presence_tell")

    async def _announce(self, mesh_id: str, mesh: _Mesh) -> None:
        try:
            if not mesh.is_read:
                await self._read_first(mesh_id)
            await self._send(mesh_id, mesh)
        finally:
            mesh.is_announcing = False
        self._plan(mesh_id, mesh)

    async def _read_first(self, mesh_id: str) -> None:
        try:
            await self._read((mesh_id,))
        except Exception as error:
            # The next sweep reads again.
            self._env.degraded.failed("presence", error)

    async def _send(self, mesh_id: str, mesh: _Mesh) -> None:
        """Send the changes to every open connection, and the whole list to newcomers."""
        mesh.announced_at = asyncio.get_running_loop().time()
        connections, newcomers = list(self._hub.of_mesh(mesh_id)), set(map(id, mesh.newcomers))
        mesh.newcomers = []
        change, at_ms = mesh.roster.take(), self._env.clock.wall_ms()
        news, whole = presence_events(change, at_ms), None
        singles = (
            self._singles(mesh, change)
            if any(not connection.wants_presence for connection in connections)
            else []
        )
        for number, connection in enumerate(connections, 1):
            if not connection.is_open:
                continue
            if not connection.wants_presence:
                frames = [frame for member_id, frame in singles if member_id != connection.member_id]
            elif id(connection) in newcomers:
                if whole is None:
                    whole = presence_events(Change(tuple(sorted(mesh.roster.announced))), at_ms, whole=True)
                frames = whole
            else:
                frames = news
            for frame in frames:
                connection.put(frame)
            self._env.metrics.presence_events.inc(len(frames))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        if len(mesh.cards) > 2 * len(connections):
            mesh.cards = {
                member_id: card
                for member_id, card in mesh.cards.items()
                if self._hub.of_member(mesh_id, member_id)
            }

    def _singles(self, mesh: _Mesh, change: Change) -> list[tuple[str, str]]:
        """Return events about one member each, with the member's id."""
        mesh.singles.update(dict.fromkeys(change.online, True) | dict.fromkeys(change.offline, False))
        events = []
        for member_id in list(islice(mesh.singles, _SINGLE_EVENTS)):
            online = mesh.singles.pop(member_id)
            card = mesh.cards.get(member_id, {"member_id": member_id})
            events.append((member_id, encode_event("peer_join" if online else "peer_leave", card)))
        return events

    def _forget_if_empty(self, mesh_id: str, mesh: _Mesh) -> None:
        """Forget a mesh without members here once all of it is published."""
        is_pending = mesh.roster.has_unpublished and self._shared is not None
        if mesh.is_announcing or is_pending or self._hub.size(mesh_id):
            return
        if mesh.timer is not None:
            mesh.timer.cancel()
        if self._meshes.get(mesh_id) is mesh:
            del self._meshes[mesh_id]


def _pages(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _IDS_PER_EVENT):
        yield ids[start : start + _IDS_PER_EVENT]
