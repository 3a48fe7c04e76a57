"""Changes of the members of a mesh, told to its connections in the order of their versions.

Whatever changes a member says so to `Cluster.changed`, and every broker reads from the store what has changed
since the version that it told last. So changes arrive in their order and without gaps, whichever broker made
them, and many of them travel together. A reader that holds the version in `since` takes the event over; one
that holds another asks for the changes.

Connections that have not said that they follow versions hear of each member as before: `member_added`,
`member_revoked`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import orjson

from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.connections.link import Link
from claudemesh.broker.degraded import Degraded
from claudemesh.broker.directory.cards import Cards, card, read_cards
from claudemesh.broker.directory.whole_pages import WholePages
from claudemesh.broker.settings import Limits
from claudemesh.broker.store.facets import DirectoryStore
from claudemesh.broker.store.types import Member, Version
from claudemesh.protocol.frames import encode_event
from claudemesh.runtime.services import OnCrash, TaskOwner

EVENT = "members_changed"
# Between two rounds in one mesh: changes that come meanwhile share the next one.
_PAUSE_S = 0.05
_LINKS_PER_S = 10_000
_LEAST_BYTES = 4096


class Feed:
    """Tells the connections of this broker what changed. A store that does not answer is asked again."""

    def __init__(
        self, store: DirectoryStore, hub: Hub, degraded: Degraded, limits: Limits, on_crash: OnCrash
    ) -> None:
        self._store = store
        self._hub = hub
        self._degraded = degraded
        self._limits = limits
        self.pages = WholePages(limits)
        # Per mesh with connections here, the version that was told last.
        self._told: dict[str, Version] = {}
        self._following: set[str] = set()
        self._changed: set[str] = set()
        self._running: set[str] = set()
        self._tasks = TaskOwner(on_crash)

    async def stop(self) -> None:
        """Tell nothing more."""
        await self._tasks.stop()

    async def enter(self, mesh_id: str) -> None:
        """A connection of a mesh comes: changes from now on are told. Raises `StorageError`."""
        if mesh_id not in self._told:
            version = await self._store.version(mesh_id)
            if version is not None:
                self._told.setdefault(mesh_id, version)

    def follow(self, connection_id: str) -> None:
        """A connection asks for versions: it gets changes as such, from before its answer on."""
        self._following.add(connection_id)

    def leave(self, connection_id: str) -> None:
        """A connection has gone."""
        self._following.discard(connection_id)

    def changed(self, mesh_id: str) -> None:
        """Members of a mesh have changed, here or elsewhere: tell it soon."""
        if mesh_id not in self._told:
            return
        self._changed.add(mesh_id)
        if mesh_id not in self._running:
            self._running.add(mesh_id)
            self._tasks.start(self._run(mesh_id), "member_changes")

    async def sweep(self) -> None:
        """Find changes that no signal told of. Raises `StorageError`."""
        here = {link.mesh_id for link in self._hub}
        self._told = {mesh_id: told for mesh_id, told in self._told.items() if mesh_id in here}
        for mesh_id, version in (await self._store.versions(here)).items():
            if self._told.setdefault(mesh_id, version) != version:
                self.changed(mesh_id)

    async def _run(self, mesh_id: str) -> None:
        try:
            while mesh_id in self._changed:
                self._changed.discard(mesh_id)
                try:
                    await self._tell(mesh_id)
                    self._degraded.worked("member_changes")
                except Exception as error:
                    self._degraded.failed("member_changes", error)
                    self._changed.add(mesh_id)
                    await asyncio.sleep(self._limits.retry_s)
                await self._pause()
        finally:
            self._running.discard(mesh_id)

    async def _pause(self) -> None:
        await asyncio.sleep(_PAUSE_S + len(self._hub) / _LINKS_PER_S)

    async def _tell(self, mesh_id: str) -> None:
        while (since := self._told.get(mesh_id)) is not None:
            # Each connection may hold a copy until its peer has read it.
            room = max(_LEAST_BYTES, self._limits.told_bytes // (len(self._hub) + 1))
            cards = await read_cards(self._store, mesh_id, since, self._limits, room=room)
            version = cards.page.version
            if cards.page.is_whole or version is None:
                # The database has another history than a moment ago: readers ask for all of it.
                await self._tell_to_ask(mesh_id)
                return
            if version != since:
                self._told[mesh_id] = version
                self._send(mesh_id, since, cards)
            if cards.page.next is None:
                return
            await self._pause()

    async def _tell_to_ask(self, mesh_id: str) -> None:
        version = await self._store.version(mesh_id)
        if version is None:
            self._told.pop(mesh_id, None)
            return
        self._told[mesh_id] = version
        frame = encode_event(EVENT, {"since": None, "version": str(version), "items": [], "gone": []})
        for link in self._hub.of_mesh(mesh_id):
            if link.connection_id in self._following:
                link.put(frame)

    def _send(self, mesh_id: str, since: Version, cards: Cards) -> None:
        data = {"since": str(since), **cards.fields()}
        frame = encode_event(EVENT, data)
        hidden = {one.id for one in cards.page.members if not one.visible and one.status != "left"}
        older = [encode_event(*told) for told in _as_before(cards.page.members, since)]
        for link in self._hub.of_mesh(mesh_id):
            if link.connection_id not in self._following:
                for one in older:
                    link.put(one)
            elif link.member_id in hidden:
                link.put(encode_event(EVENT, data | {"items": _seen_by(link, cards.page.members)}))
            else:
                link.put(frame)


def _seen_by(link: Link, members: Iterable[Member]) -> list[orjson.Fragment]:
    return [
        orjson.Fragment(orjson.dumps(card(one, is_own=one.id == link.member_id)))
        for one in members
        if one.status != "left"
    ]


def _as_before(members: Iterable[Member], since: Version) -> Iterable[tuple[str, dict[str, object]]]:
    """Return the events by which connections hear of members that know no versions."""
    for one in members:
        told: dict[str, object] = {"name": one.name, "member_id": one.id, "pubkey": one.ed25519_pubkey}
        if one.status == "revoked":
            yield "member_revoked", told
        elif one.status == "active" and one.joined_version > since.number:
            yield "member_added", told | {"role": one.role}
