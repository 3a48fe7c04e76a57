"""Signals between brokers on one database: small JSON payloads, published by NOTIFY.

No message depends on a signal: it is in the database, and the sweep of every broker finds it there
(cluster/sweep.py). A signal only makes it arrive at once. An embedded broker publishes nothing.

| kind | sent when | applied by |
|---|---|---|
| `hello` | a broker starts | no part: it shows that there is company |
| `wake` | deliveries for members that may be connected elsewhere were committed | `Cluster` |
| `queue` | a work queue has messages, and no member of this broker has room | `WorkQueues` |
| `presence` | members of this broker came, went, or changed whether they are visible | `Announcer` |
| `topic_key` | an epoch of a topic was made | `KeyNews` |
| `directory` | the member list of a mesh changed | `Feed` |
| `tell`, `tell_members` | an event is for all members of a mesh, or for some | `Cluster` |
| `close` | connections of a member have to close | `Cluster`, `Announcer` |
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

import orjson

from claudemesh.broker.environment import Environment
from claudemesh.broker.store.protocol import ClusterStore
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.batching import Batcher, Overloaded
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner, supervise

log = get_logger("broker.cluster")

# Postgres takes payloads below 8000 bytes; a member id in JSON has 39.
IDS_PER_SIGNAL = 180
IDS_BESIDE_DATA = 100
_BACKOFF = Backoff(initial_s=0.2, cap_s=5)

Signal: TypeAlias = Mapping[str, Any]
Handler: TypeAlias = Callable[[Signal], None]


class Signals:
    """Publishes signals of this broker, and passes those of other brokers to the handlers of their kind.

    Without a store there are no other brokers: publishing does nothing. Publishing never waits and never
    raises; a signal that cannot be sent is reported and dropped.
    """

    def __init__(self, store: ClusterStore | None, env: Environment) -> None:
        self._store = store
        self._env = env
        self._handlers: dict[str, list[Handler]] = {}
        self._batcher: Batcher[str, None] = Batcher(self._send)
        self._waking: dict[str, set[str]] = {}
        self._flushing = False
        self._tasks = TaskOwner(env.on_crash)
        self._has_company = False

    @property
    def is_shared(self) -> bool:
        """Whether other brokers may use the same database."""
        return self._store is not None

    @property
    def has_company(self) -> bool:
        """Whether another broker has sent a signal or holds a lease. Until then wake-ups are not
        published."""
        return self._has_company

    def note_company(self, *, present: bool) -> None:
        """Note whether the database shows another broker."""
        self._has_company = present

    def subscribe(self, kind: str, handler: Handler) -> None:
        """Let a handler apply signals of a kind. Several handlers run in the order of their subscription."""
        self._handlers.setdefault(kind, []).append(handler)

    def start(self, on_resumed: Callable[[], None]) -> None:
        """Listen until `stop`. `on_resumed` is called after each beginning: signals may have been missed."""
        store = self._store
        if store is None:
            return

        async def listen(worked: Callable[[], None]) -> None:
            await store.listen(self._on_signal, on_resumed, worked)

        listening = supervise(listen, "listen", _BACKOFF, self._env.degraded)
        self._tasks.start(listening, "cluster_listen")
        self.publish("hello")

    async def stop(self) -> None:
        """Send what waits, and end."""
        await self._batcher.close()
        await self._tasks.stop()

    def publish(self, kind: str, **fields: object) -> None:
        """Send a signal in the background; those that wait at the same time share a transaction."""
        if self._store is None:
            return
        try:
            self._batcher.submit(self._encode(kind, fields)).add_done_callback(self._on_published)
        except Overloaded as error:
            self._env.degraded.failed("signal", error)

    def publish_queue(self, mesh_id: str, queue: str) -> None:
        """Let other brokers look at a work queue: no member of this one has room for what is in it."""
        if self._has_company:
            self.publish("queue", mesh=mesh_id, queue=queue)

    def publish_wakeup(self, mesh_id: str, member_ids: Iterable[str]) -> None:
        """Let other brokers deliver to these members what has just been committed.

        Wake-ups that come while one is being sent are merged into the next.
        """
        if not self._has_company:
            return
        self._waking.setdefault(mesh_id, set()).update(member_ids)
        if not self._flushing:
            self._flushing = True
            self._tasks.start(self._flush(), "cluster_wake")

    async def _flush(self) -> None:
        try:
            while self._waking:
                waking, self._waking = self._waking, {}
                payloads = [
                    self._encode("wake", {"mesh": mesh_id, "members": ids})
                    for mesh_id, members in waking.items()
                    for ids in chunks(members)
                ]
                try:
                    await self._send(payloads)
                except Exception as error:
                    # The sweeps of the other brokers find the deliveries.
                    self._env.degraded.failed("signal", error)
        finally:
            self._flushing = False

    async def _send(self, payloads: Sequence[str]) -> Sequence[None]:
        if self._store is not None:
            await self._store.signal(payloads)
        return [None] * len(payloads)

    def _encode(self, kind: str, fields: Mapping[str, object]) -> str:
        return orjson.dumps({"from": self._env.broker_id, "kind": kind, **fields}).decode()

    def _on_published(self, future: asyncio.Future[None]) -> None:
        error = future.exception()
        if error is not None:
            self._env.degraded.failed("signal", error)

    def _on_signal(self, payload: str) -> None:
        try:
            signal: dict[str, Any] = orjson.loads(payload)
            if signal["from"] != self._env.broker_id:
                self._has_company = True
                self._env.metrics.signals.labels(signal["kind"]).inc()
                self._apply(signal)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            # A broker of a later release may send what this one does not know. The sweep finds what matters.
            log.warning("signal_not_understood", error=repr(error))

    def _apply(self, signal: Signal) -> None:
        for handler in self._handlers.get(signal["kind"], ()):
            handler(signal)


def chunks(ids: Collection[str], size: int = IDS_PER_SIGNAL) -> Iterator[list[str]]:
    """Return ids in lists of at most `size`, as many as fit into one signal."""
    rest = iter(ids)
    while chunk := list(islice(rest, size)):
        yield chunk
