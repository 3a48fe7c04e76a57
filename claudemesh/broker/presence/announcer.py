"""Tells the members of each mesh who is online: many changes in one event, encoded once for all of them.

An event follows a change after 50 ms, and the event before it after an interval that grows with the number of
members that are connected. So a change in a small mesh shows at once, and the work stays bounded when
thousands of members come back together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice

from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.connections.link import Link
from claudemesh.broker.degraded import Degraded
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.presence.roster import Change, Roster
from claudemesh.broker.store.types import Lease
from claudemesh.protocol.frames import encode_event
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.services import OnCrash, TaskOwner

GATHER_S = 0.05
_PER_MEMBER_S = 0.001
_LONGEST_S = 5.0
_IDS_PER_EVENT = 5000
# Events that are put before other work gets its turn.
_AT_ONCE = 100
# Events about single members, for daemons that know no others: more at a time would fill their queues.
_SINGLE_EVENTS = 128

EVENT = "presence"


def interval_s(members: int) -> float:
    """Return the shortest time between two events to so many connected members."""
    return min(_LONGEST_S, max(GATHER_S, members * _PER_MEMBER_S))


def presence_events(change: Change, at_ms: int, *, whole: bool = False) -> list[str]:
    """Return the frames that tell a change.

    With `whole` the first of them says that every member that it does not name is offline.
    """
    parts = [
        {"online": online, "offline": offline}
        for online, offline in (
            *((list(ids), []) for ids in _chunks(change.online)),
            *(([], list(ids)) for ids in _chunks(change.offline)),
        )
    ]
    if len(change.online) + len(change.offline) <= _IDS_PER_EVENT and (change or whole):
        parts = [{"online": list(change.online), "offline": list(change.offline)}]
    return [
        encode_event(EVENT, {"whole": whole and number == 0, "at": at_ms, **part})
        for number, part in enumerate(parts)
    ]


@dataclass(slots=True)
class _Mesh:
    """State of one mesh: its roster and the planned events."""

    roster: Roster
    newcomers: list[Link] = field(default_factory=list)
    # How members that are connected here are named to daemons that know single events only.
    cards: dict[str, Mapping[str, object]] = field(default_factory=dict)
    singles: dict[str, bool] = field(default_factory=dict)
    told_at: float = float("-inf")
    timer: asyncio.TimerHandle | None = None
    is_telling: bool = False
    is_saying: bool = False
    # Whether the leases at other brokers have been read.
    is_read: bool = False


class Announcer:
    """Keeps a roster for each mesh that has members here, and tells them its changes."""

    def __init__(
        self,
        hub: Hub,
        clock: Clock,
        metrics: BrokerMetrics,
        degraded: Degraded,
        broker_id: str,
        on_crash: OnCrash,
    ) -> None:
        self._hub = hub
        self._clock = clock
        self._metrics = metrics
        self._degraded = degraded
        self._broker_id = broker_id
        self._meshes: dict[str, _Mesh] = {}
        self._tasks = TaskOwner(on_crash)
        # With other brokers: tells them who is here, and reads the leases of some meshes.
        self.say: Callable[[str, Sequence[Lease], Sequence[str]], None] | None = None
        self.ask: Callable[[Collection[str]], Awaitable[Mapping[str, Sequence[Lease]]]] | None = None

    async def stop(self) -> None:
        """Tell nothing more."""
        for mesh in self._meshes.values():
            if mesh.timer is not None:
                mesh.timer.cancel()
        await self._tasks.stop()

    def online(self, mesh_id: str) -> Set[str]:
        """Return the members that others see as online."""
        mesh = self._meshes.get(mesh_id)
        return frozenset() if mesh is None else mesh.roster.online()

    # What happens here.

    def arrived(self, link: Link, card: Mapping[str, object], *, visible: bool) -> None:
        """A connection is open: it hears who is online, and the others hear of it."""
        mesh = self._meshes.get(link.mesh_id)
        if mesh is None:
            mesh = self._meshes[link.mesh_id] = _Mesh(Roster(self._broker_id), is_read=self.ask is None)
        mesh.roster.arrive(link.member_id, visible=visible)
        mesh.cards[link.member_id] = card
        mesh.newcomers.append(link)
        self._changed(link.mesh_id, mesh)

    def left(self, mesh_id: str, member_id: str) -> None:
        """A member's last connection here has gone."""
        mesh = self._meshes.get(mesh_id)
        if mesh is not None:
            mesh.roster.leave(member_id)
            self._changed(mesh_id, mesh)

    def show(self, mesh_id: str, member_id: str, *, visible: bool) -> None:
        """A member that is connected here is to be seen by others, or is not."""
        mesh = self._meshes.get(mesh_id)
        if mesh is not None:
            mesh.roster.show(member_id, visible=visible)
            self._changed(mesh_id, mesh)

    # What is heard of other brokers.

    def hear(self, mesh_id: str, broker_id: str, leases: Iterable[Lease], gone: Iterable[str]) -> None:
        """Another broker says what happened there."""
        mesh = self._meshes.get(mesh_id)
        if mesh is not None:
            mesh.roster.hear(broker_id, leases, gone)
            self._changed(mesh_id, mesh)

    def moves(self, mesh_id: str, broker_id: str, member_id: str) -> None:
        """A member's connection here is replaced by one at another broker, which will say more."""
        mesh = self._meshes.get(mesh_id)
        if mesh is not None:
            mesh.roster.moves(broker_id, member_id)

    async def read(self) -> None:
        """Take over what the database says: a broker that died says nothing more. Raises what `ask` does."""
        await self._read(self._meshes)

    async def _read(self, mesh_ids: Iterable[str]) -> None:
        if self.ask is None:
            return
        meshes = {mesh_id: self._meshes[mesh_id] for mesh_id in mesh_ids}
        for mesh in meshes.values():
            mesh.roster.begin_read()
        found = await self.ask(meshes) if meshes else {}
        for mesh_id, mesh in meshes.items():
            mesh.roster.read(found.get(mesh_id, ()))
            mesh.is_read = True
            self._changed(mesh_id, mesh)

    # Telling.

    def _changed(self, mesh_id: str, mesh: _Mesh) -> None:
        if self.say is not None and mesh.roster.is_unsaid and not mesh.is_saying:
            mesh.is_saying = True
            asyncio.get_running_loop().call_later(GATHER_S, self._say, mesh_id, mesh)
        self._plan(mesh_id, mesh)

    def _say(self, mesh_id: str, mesh: _Mesh) -> None:
        mesh.is_saying = False
        here, gone = mesh.roster.take_unsaid()
        if self.say is not None:
            self.say(mesh_id, here, gone)
        self._forget_if_empty(mesh_id, mesh)

    def _plan(self, mesh_id: str, mesh: _Mesh) -> None:
        if mesh.timer is not None or mesh.is_telling:
            return
        if not (mesh.roster.is_changed or mesh.newcomers or mesh.singles):
            self._forget_if_empty(mesh_id, mesh)
            return
        loop = asyncio.get_running_loop()
        due_in_s = mesh.told_at + interval_s(self._hub.size(mesh_id)) - loop.time()
        mesh.timer = loop.call_later(max(GATHER_S, due_in_s), self._begin, mesh_id, mesh)

    def _begin(self, mesh_id: str, mesh: _Mesh) -> None:
        mesh.timer = None
        mesh.is_telling = True
        self._tasks.start(self._tell(mesh_id, mesh), "presence_tell")

    async def _tell(self, mesh_id: str, mesh: _Mesh) -> None:
        try:
            if not mesh.is_read:
                await self._read_first(mesh_id)
            await self._put(mesh_id, mesh)
        finally:
            mesh.is_telling = False
        self._plan(mesh_id, mesh)

    async def _read_first(self, mesh_id: str) -> None:
        try:
            await self._read((mesh_id,))
        except Exception as error:
            # The sweep reads again.
            self._degraded.failed("presence", error)

    async def _put(self, mesh_id: str, mesh: _Mesh) -> None:
        """Tell every member what has changed, and newcomers who is online."""
        mesh.told_at = asyncio.get_running_loop().time()
        links, newcomers = list(self._hub.of_mesh(mesh_id)), set(map(id, mesh.newcomers))
        mesh.newcomers = []
        change, at_ms = mesh.roster.take(), self._clock.wall_ms()
        news, whole = presence_events(change, at_ms), None
        singles = self._singles(mesh, change) if any(not link.hears_presence for link in links) else []
        for number, link in enumerate(links, 1):
            if not link.is_open:
                continue
            if not link.hears_presence:
                frames = [frame for member_id, frame in singles if member_id != link.member_id]
            elif id(link) in newcomers:
                if whole is None:
                    whole = presence_events(Change(tuple(sorted(mesh.roster.told))), at_ms, whole=True)
                frames = whole
            else:
                frames = news
            for frame in frames:
                link.put(frame)
            self._metrics.presence_events.inc(len(frames))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        if len(mesh.cards) > 2 * len(links):
            mesh.cards = {
                member_id: card
                for member_id, card in mesh.cards.items()
                if self._hub.links(mesh_id, member_id)
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
        """Forget a mesh that has no connections here and nothing left to announce."""
        is_unsaid = mesh.roster.is_unsaid and self.say is not None
        if mesh.is_telling or is_unsaid or self._hub.size(mesh_id):
            return
        if mesh.timer is not None:
            mesh.timer.cancel()
        if self._meshes.get(mesh_id) is mesh:
            del self._meshes[mesh_id]


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _IDS_PER_EVENT):
        yield ids[start : start + _IDS_PER_EVENT]
