"""Changes of a mesh's member list, sent to its connections in the order of their versions.

A change is noted by `publish`, and every broker reads from the store what has changed since the version that
it sent last. So changes arrive in order and without gaps, whichever broker made them, and changes that come
together are coalesced. A reader that holds the version in `since` applies the event; a reader that holds
another one asks for the changes.

Connections that do not follow versions are sent one event for each member: `member_added`, `member_updated`,
`member_revoked`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import orjson

from claudemesh.broker.cluster.signals import Signal, Signals
from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.connections.open_connection import OpenConnection
from claudemesh.broker.directory.cards import Cards, card, read_cards
from claudemesh.broker.directory.whole_pages import WholePages
from claudemesh.broker.environment import Environment
from claudemesh.broker.store.facets import DirectoryStore
from claudemesh.broker.store.types import Member, Version
from claudemesh.protocol.frames import encode_event
from claudemesh.runtime.services import TaskOwner

EVENT = "members_changed"
# Between two rounds in one mesh; changes in between are coalesced.
_PAUSE_S = 0.05
_CONNECTIONS_PER_S = 10_000
_LEAST_BYTES = 4096


class Feed:
    """Sends changes to the connections of this broker. A store that does not answer is asked again."""

    def __init__(self, store: DirectoryStore, hub: Hub, signals: Signals, env: Environment) -> None:
        self._store = store
        self._hub = hub
        self._signals = signals
        self._env = env
        self.pages = WholePages(env.limits)
        # By mesh with connections here, the version that was sent last.
        self._sent: dict[str, Version] = {}
        self._following: set[str] = set()
        self._changed: set[str] = set()
        self._running: set[str] = set()
        self._tasks = TaskOwner(env.on_crash)
        signals.subscribe("directory", self._on_directory)

    async def stop(self) -> None:
        """Send nothing more."""
        await self._tasks.stop()

    async def enter(self, mesh_id: str) -> None:
        """Begin with a mesh of which a member connects: later changes are sent. Raises `StorageError`."""
        if mesh_id not in self._sent:
            version = await self._store.version(mesh_id)
            if version is not None:
                self._sent.setdefault(mesh_id, version)

    def follow(self, connection_id: str) -> None:
        """Send a connection changes by versions from now on, before its request for them is answered."""
        self._following.add(connection_id)

    def leave(self, connection_id: str) -> None:
        """Note that a connection has ended."""
        self._following.discard(connection_id)

    def publish(self, mesh_id: str) -> None:
        """Note that members of a mesh have changed: every broker sends the changes soon."""
        self._plan(mesh_id)
        self._signals.publish("directory", mesh=mesh_id)

    def _on_directory(self, signal: Signal) -> None:
        self._plan(signal["mesh"])

    def _plan(self, mesh_id: str) -> None:
        if mesh_id not in self._sent:
            return
        self._changed.add(mesh_id)
        if mesh_id not in self._running:
            self._running.add(mesh_id)
            self._tasks.start(self._run(mesh_id), "member_changes")

    async def sweep(self) -> None:
        """Find changes without a signal. Raises `StorageError`."""
        here = {connection.mesh_id for connection in self._hub}
        self._sent = {mesh_id: told for mesh_id, told in self._sent.items() if mesh_id in here}
        for mesh_id, version in (await self._store.versions(here)).items():
            if self._sent.setdefault(mesh_id, version) != version:
                self._plan(mesh_id)

    async def _run(self, mesh_id: str) -> None:
        try:
            while mesh_id in self._changed:
                self._changed.discard(mesh_id)
                try:
                    await self._send_changes(mesh_id)
                    self._env.degraded.worked("member_changes")
                except Exception as error:
                    self._env.degraded.failed("member_changes", error)
                    self._changed.add(mesh_id)
                    await asyncio.sleep(self._env.limits.retry_s)
                await self._pause()
        finally:
            self._running.discard(mesh_id)

    async def _pause(self) -> None:
        await asyncio.sleep(_PAUSE_S + len(self._hub) / _CONNECTIONS_PER_S)

    async def _send_changes(self, mesh_id: str) -> None:
        while (since := self._sent.get(mesh_id)) is not None:
            # Each connection may hold a copy until its peer has read it (backpressure by size).
            room = max(_LEAST_BYTES, self._env.limits.told_bytes // (len(self._hub) + 1))
            cards = await read_cards(self._store, mesh_id, since, self._env.limits, room=room)
            version = cards.page.version
            if cards.page.is_whole or version is None:
                # The database has another history than a moment ago: readers ask for the whole list.
                await self._send_reset(mesh_id)
                return
            if version != since:
                self._sent[mesh_id] = version
                self._send(mesh_id, since, cards)
            if cards.page.next is None:
                return
            await self._pause()

    async def _send_reset(self, mesh_id: str) -> None:
        version = await self._store.version(mesh_id)
        if version is None:
            self._sent.pop(mesh_id, None)
            return
        self._sent[mesh_id] = version
        frame = encode_event(EVENT, {"since": None, "version": str(version), "items": [], "gone": []})
        for connection in self._hub.of_mesh(mesh_id):
            if connection.connection_id in self._following:
                connection.put(frame)

    def _send(self, mesh_id: str, since: Version, cards: Cards) -> None:
        data = {"since": str(since), **cards.fields()}
        frame = encode_event(EVENT, data)
        hidden = {one.id for one in cards.page.members if not one.visible and one.status != "left"}
        older = [encode_event(*told) for told in _as_before(cards.page.members, since)]
        for connection in self._hub.of_mesh(mesh_id):
            if connection.connection_id not in self._following:
                for one in older:
                    connection.put(one)
            elif connection.member_id in hidden:
                connection.put(
                    encode_event(EVENT, data | {"items": _seen_by(connection, cards.page.members)})
                )
            else:
                connection.put(frame)


def _seen_by(connection: OpenConnection, members: Iterable[Member]) -> list[orjson.Fragment]:
    return [
        orjson.Fragment(orjson.dumps(card(one, is_own=one.id == connection.member_id)))
        for one in members
        if one.status != "left"
    ]


def _as_before(members: Iterable[Member], since: Version) -> Iterable[tuple[str, dict[str, object]]]:
    """Return the events of changed members for connections that do not follow versions."""
    for one in members:
        told: dict[str, object] = {"name": one.name, "member_id": one.id, "pubkey": one.ed25519_pubkey}
        if one.status == "revoked":
            yield "member_revoked", told
        elif one.status == "active":
            is_new = one.joined_version > since.number
            yield "member_added" if is_new else "member_updated", told | {"role": one.role}
