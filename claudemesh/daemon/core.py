"""The operations of a running daemon for the API: one object, no HTTP in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import claudemesh
from claudemesh.daemon.bus import Bus
from claudemesh.daemon.disk import Room
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.presence import Presence
from claudemesh.daemon.inbox.receive import Receiver
from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.daemon.link.link import Link
from claudemesh.daemon.metrics import DaemonMetrics
from claudemesh.daemon.outbox.drain import Drain
from claudemesh.daemon.outbox.recovery import OutboxRecovery
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.submit import Submitter
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.daemon.topics.known import KnownTopics
from claudemesh.daemon.topics.own import OwnTopics
from claudemesh.home.membership import Membership
from claudemesh.protocol.keys import Identity
from claudemesh.runtime.clock import Clock, iso_ms
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.lived import LivedClock


class Core:
    """The parts of a running daemon, and the few questions that need several of them."""

    def __init__(
        self,
        *,
        membership: Membership,
        identity: Identity,
        clock: Clock,
        lived: LivedClock,
        settings: DaemonSettings,
        directory: Directory,
        presence: Presence,
        own_topics: OwnTopics,
        bus: Bus,
        outbox_store: OutboxStore,
        inbox: InboxStore,
        gate: Submitter,
        drain: Drain,
        receiver: Receiver,
        link: Link,
        topics: KnownTopics,
        operator: OutboxRecovery,
        metrics: DaemonMetrics,
        room: Callable[[], Room],
        conditions: Conditions,
        pid: int,
        on_reload: Callable[[], None],
        on_stop: Callable[[], None],
    ) -> None:
        self.membership = membership
        self.identity = identity
        self.clock = clock
        self.lived = lived
        self.settings = settings
        self.directory = directory
        self.presence = presence
        self.own_topics = own_topics
        self.bus = bus
        self.outbox = outbox_store
        self.inbox = inbox
        self.link = link
        self.topics = topics
        self.metrics = metrics
        self.started_at = clock.monotonic()
        self._submitter = gate
        self._drain = drain
        self._receiver = receiver
        self._operator = operator
        self._room = room
        self._conditions = conditions
        self._pid = pid
        self._on_reload = on_reload
        self.stop_soon = on_stop
        self.config_loaded_ms = clock.wall_ms()
        self.config_error: str | None = None
        self.config_needs_restart: list[str] = []
        self.reloads = 0
        self.with_broker = False
        self.clock_offset_ms: int | None = None

    async def submit(self, request: SendRequest, *, wait_ms: int | None = None) -> Answer:
        """Accept a send (daemon.md, POST /v1/send)."""
        return await self._submitter.submit(request, wait_ms=wait_ms)

    async def requeue(
        self, key: str, *, new_client_message_id: str | None = None, patch: Mapping[str, Any] | None = None
    ) -> Answer:
        """Send a stuck row's message again, under a new id."""
        return await self._operator.requeue(key, new_client_message_id=new_client_message_id, patch=patch)

    async def drop(self, key: str, by: str) -> Answer:
        """Retire a stuck row."""
        return await self._operator.drop(key, by)

    async def render_metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return self.metrics.render(
            connected=self.link.connected,
            lag_ms=self.link.lag_ms,
            depth=await self.outbox.counts(),
            invalid_inbound=self._receiver.invalid,
            room=self._room(),
            oldest_s=await self._oldest_s(),
            held_s=self._drain.held_s,
            streams=self.bus.followers,
        )

    async def _oldest_s(self) -> float:
        accepted_ms = await self.outbox.oldest_pending()
        return 0.0 if accepted_ms is None else (self.lived.now_ms() - accepted_ms) / 1000

    def wall_of(self, lived_ms: int) -> int:
        """Return the Unix milliseconds at which the lived clock shows this, for people."""
        return self.clock.wall_ms() + lived_ms - self.lived.now_ms()

    def reload(self) -> dict[str, Any]:
        """Take over config.toml as it is now, and return how that went."""
        self._on_reload()
        return self._config()

    async def health(self) -> dict[str, Any]:
        """Return what `/v1/health` shows."""
        counts = await self.outbox.counts()
        return {
            "connected": self.link.connected,
            "lag_ms": self.link.lag_ms,
            "queue_depth": counts["pending"],
            "inflight": counts["inflight"],
            "dead": counts["dead"],
            "mesh": self.membership.slug,
            "name": self.membership.name,
            "member_id": self.membership.member_id,
            "member_pubkey": self.identity.ed25519_pubkey,
            "uptime_s": int(self.clock.monotonic() - self.started_at),
            "schema_version": self.outbox.schema_version,
            "daemon_version": claudemesh.__version__,
            "broker_version": self.link.broker_version,
            "broker_url": self.membership.broker_url,
            "last_error": self.link.last_error,
            "degraded": self._conditions.items(),
            "config": self._config(),
            "pid": self._pid,
            "with_broker": self.with_broker,
            "clock_offset_ms": self.clock_offset_ms,
        }

    def _config(self) -> dict[str, Any]:
        return {
            "loaded_at": iso_ms(self.config_loaded_ms),
            "error": self.config_error,
            "needs_restart": self.config_needs_restart,
            "reloads": self.reloads,
        }
