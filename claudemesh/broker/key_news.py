"""News of topic keys: holders are asked to wrap a key or to make an epoch, and members are told of it.

A question goes to up to three connected holders, chosen at random. When it is not answered for a while, it
goes to others first, and again to those that were asked: a holder may have been restarted meanwhile. After
three rounds it ends: the member asks again when it needs the key, and the next poster makes a wanted epoch.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from claudemesh.broker.cluster.cluster import Cluster
from claudemesh.broker.cluster.signals import Signal, Signals, chunks
from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.environment import Environment
from claudemesh.broker.presence.announcer import Announcer
from claudemesh.broker.store.topic_keys import TopicKeyStore
from claudemesh.protocol.events import (
    TOPIC_KEY_ADDED,
    TOPIC_KEY_CHANGED,
    TOPIC_KEY_WANTED,
    TOPIC_REKEY_WANTED,
)
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.services import TaskOwner

# Holders that are asked at a time, and rounds of a question.
HOLDERS: Final = 3
_ROUNDS: Final = 3
# Questions that wait for their answer. Further ones are asked once.
_MOST_OPEN: Final = 1000
# Members that the store is asked about at a time.
_LOOKED_AT: Final = 500
_NO_MEMBER: Final = "00000000-0000-0000-0000-000000000000"


class KeyNews:
    """Asks holders and tells members, wherever in the cluster they are connected."""

    def __init__(
        self,
        store: TopicKeyStore,
        hub: Hub,
        announcer: Announcer,
        cluster: Cluster,
        signals: Signals,
        env: Environment,
    ) -> None:
        self._store = store
        self._hub = hub
        self._announcer = announcer
        self._cluster = cluster
        self._signals = signals
        self._env = env
        self._open: set[tuple[str, ...]] = set()
        self._tasks = TaskOwner(env.on_crash)
        signals.subscribe("topic_key", self._on_changed)

    async def stop(self) -> None:
        """Ask nothing more."""
        await self._tasks.stop()

    def want(self, mesh_id: str, topic: str, key_epoch: int, member_id: str, *, again: bool = False) -> None:
        """Ask holders to wrap the key of an epoch for a member, in the background.

        `again`: the wraps that are there do not open. Otherwise a question that is open is not repeated.
        """
        data = {"topic": topic, "key_epoch": key_epoch, "member_id": member_id}
        still = partial(self._is_missing, mesh_id, topic, key_epoch, member_id)
        self._ask(mesh_id, topic, TOPIC_KEY_WANTED, data, still, again=again)

    def want_epochs(self, mesh_id: str, topics: Iterable[str]) -> None:
        """Ask holders to make the next epoch of topics, in the background."""
        for topic in topics:
            still = partial(self._is_wanted, mesh_id, topic)
            self._ask(mesh_id, topic, TOPIC_REKEY_WANTED, {"topic": topic}, still)

    def departed(self, mesh_id: str, member_id: str) -> None:
        """Ask for the epochs that a departure has made wanted, in the background."""

        async def ask() -> None:
            self.want_epochs(mesh_id, await self._store.wanted(mesh_id, member_id))

        self._tasks.start(self._guarded(ask), "topic_keys")

    def changed(self, mesh_id: str, topic: str, key_epoch: int) -> None:
        """Tell subscribers and holders that an epoch is the present one, in the background.

        Each broker tells those that are connected to it.
        """
        self._tell_changed(mesh_id, topic, key_epoch)
        self._signals.publish("topic_key", mesh=mesh_id, topic=topic, key_epoch=key_epoch)

    def _on_changed(self, signal: Signal) -> None:
        self._tell_changed(signal["mesh"], signal["topic"], signal["key_epoch"])

    def _tell_changed(self, mesh_id: str, topic: str, key_epoch: int) -> None:
        async def tell() -> None:
            data = {"topic": topic, "key_epoch": key_epoch}
            for some in chunks(sorted(self._hub.online(mesh_id)), _LOOKED_AT):
                audience = await self._store.audience(mesh_id, topic, some)
                self._hub.broadcast_to(mesh_id, audience, TOPIC_KEY_CHANGED, data)

        self._tasks.start(self._guarded(tell), "topic_keys")

    def added(self, mesh_id: str, topic: str, key_epoch: int, member_ids: Sequence[str]) -> None:
        """Tell members that wraps of an epoch are there for them."""
        self._env.metrics.topic_wraps.inc(len(member_ids))
        data = {"topic": topic, "key_epoch": key_epoch}
        self._cluster.broadcast_to(mesh_id, member_ids, TOPIC_KEY_ADDED, data)

    def _ask(
        self,
        mesh_id: str,
        topic: str,
        event: str,
        data: Mapping[str, object],
        still: Callable[[], Awaitable[bool]],
        *,
        again: bool = False,
    ) -> None:
        key = (mesh_id, event, str(again), *map(str, data.values()))
        if key in self._open:
            return
        rounds = _ROUNDS if len(self._open) < _MOST_OPEN else 1
        self._open.add(key)

        async def ask() -> None:
            try:
                asked: set[str] = set()
                for number in range(rounds):
                    if number:
                        await asyncio.sleep(self._env.limits.key_answer_s)
                        if not await still():
                            return
                    asked.update(await self._ask_some(mesh_id, topic, event, data, asked))
            finally:
                self._open.discard(key)

        self._tasks.start(self._guarded(ask), "topic_keys")

    async def _ask_some(
        self, mesh_id: str, topic: str, event: str, data: Mapping[str, object], asked: set[str]
    ) -> Sequence[str]:
        connected = sorted(self._connected(mesh_id) - {str(data.get("member_id"))})
        random.shuffle(connected)
        connected.sort(key=asked.__contains__)
        found: list[str] = []
        for some in chunks(connected, _LOOKED_AT):
            found += await self._store.holders(mesh_id, topic, some, subscribed=event == TOPIC_REKEY_WANTED)
            if len(found) >= HOLDERS:
                break
        random.shuffle(found)
        found.sort(key=asked.__contains__)
        chosen = found[:HOLDERS]
        self._env.metrics.topic_keys_asked.labels(event).inc(len(chosen))
        self._cluster.broadcast_to(mesh_id, chosen, event, data)
        return chosen

    async def _is_missing(self, mesh_id: str, topic: str, key_epoch: int, member_id: str) -> bool:
        state = await self._store.state(mesh_id, topic, member_id, (key_epoch,))
        return state is not None and not any(wrap.key_epoch == key_epoch for wrap in state.wraps)

    async def _is_wanted(self, mesh_id: str, topic: str) -> bool:
        state = await self._store.state(mesh_id, topic, _NO_MEMBER, ())
        return state is not None and state.rekey_wanted

    def _connected(self, mesh_id: str) -> set[str]:
        return {*self._hub.online(mesh_id), *self._announcer.online(mesh_id)}

    async def _guarded(self, ask: Callable[[], Awaitable[None]]) -> None:
        try:
            await ask()
        except StorageError as error:
            self._env.degraded.failed("topic_keys", error)
