"""State of a running daemon: the health report of /v1/health, and the page of /v1/metrics."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import claudemesh
from claudemesh.daemon.address import BrokerAddress
from claudemesh.daemon.bus import Bus
from claudemesh.daemon.disk import Room
from claudemesh.daemon.files.store import FilesStore
from claudemesh.daemon.inbox.sealed import SealedMessages
from claudemesh.daemon.link.link import Link
from claudemesh.daemon.live_config import LiveConfig
from claudemesh.daemon.metrics import DaemonMetrics
from claudemesh.daemon.outbox.drain import Drain
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.topics.keys import TopicKeys
from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import Membership
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.lived import LivedClock


@dataclass(slots=True, kw_only=True)
class HealthReport:
    """Makes the reply of /v1/health.

    `with_broker`: this process runs a broker too.
    """

    membership: Membership
    address: BrokerAddress
    keyring: Keyring
    clock: Clock
    config: LiveConfig
    link: Link
    outbox_store: OutboxStore
    conditions: Conditions
    with_broker: bool
    _clock_offset_ms: int | None = field(init=False, default=None)
    _started_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._started_s = self.clock.monotonic()

    @property
    def broker_version(self) -> str | None:
        """The broker's version as of the last handshake, None before the first."""
        return self.link.broker_version

    @property
    def broker_features(self) -> Mapping[str, Any]:
        """The broker's features and their parameters as of the last handshake, none before the first."""
        return {} if self.link.agreed is None else self.link.agreed.offered

    @property
    def schema_version(self) -> int:
        """The version of the schema of outbox.db."""
        return self.outbox_store.schema_version

    @property
    def connected(self) -> bool:
        """Whether the link to the broker is up."""
        return self.link.connected

    def link_up(self, broker_wall_ms: int) -> None:
        """Note how far this host's clock is ahead of the broker's, as of a handshake."""
        self._clock_offset_ms = self.clock.wall_ms() - broker_wall_ms

    def line(self) -> str:
        """Return the state in one line, for a service manager."""
        link = "connected to" if self.link.connected else "not connected to"
        codes = ", ".join(self.conditions.codes())
        state = f"{self.membership.name} in mesh {self.membership.slug}, {link} {self.address.url}"
        return f"{state}, degraded: {codes}" if codes else state

    def membership_changed(self, membership: Membership) -> None:
        """Show another name or role from now on."""
        self.membership = membership

    def broker_wall_ms(self) -> int:
        """Return the wall clock of the broker, as far as it is known."""
        return self.clock.wall_ms() - (self._clock_offset_ms or 0)

    async def make(self) -> dict[str, Any]:
        """Return the health report as a JSON object."""
        counts = await self.outbox_store.counts()
        return {
            "connected": self.link.connected,
            "lag_ms": self.link.lag_ms,
            "queue_depth": counts["pending"],
            "inflight": counts["inflight"],
            "dead": counts["dead"],
            "mesh": self.membership.slug,
            "name": self.membership.name,
            "member_id": self.membership.member_id,
            "member_pubkey": self.keyring.pubkey,
            "uptime_s": int(self.clock.monotonic() - self._started_s),
            "schema_version": self.schema_version,
            "daemon_version": claudemesh.__version__,
            "broker_version": self.link.broker_version,
            "broker_url": self.address.url,
            "last_error": self.link.last_error,
            "degraded": self.conditions.items(),
            "config": self.config.report(),
            "pid": os.getpid(),
            "with_broker": self.with_broker,
            "clock_offset_ms": self._clock_offset_ms,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsPage:
    """Makes the reply of /v1/metrics: the counters, and gauges with the present values of the parts."""

    metrics: DaemonMetrics
    link: Link
    outbox_store: OutboxStore
    files: FilesStore
    drain: Drain
    bus: Bus
    lived: LivedClock
    room: Callable[[], Room]
    sealed: SealedMessages
    topic_keys: TopicKeys

    async def make(self) -> bytes:
        """Return the page in Prometheus text format."""
        files, sealed = await self.files.waiting(), await self.sealed.without_text()
        return self.metrics.render(
            connected=self.link.connected,
            lag_ms=self.link.lag_ms,
            depth=await self.outbox_store.counts(),
            room=self.room(),
            oldest_s=await self._oldest_s(),
            held_s=self.drain.held_s,
            streams=self.bus.followers,
            files=files.counts,
            files_bytes=files.size,
            sealed={"waiting": sealed.waiting, "unreadable": sealed.unreadable},
            keys_wanted=len(self.topic_keys.waiting),
            wraps_wrong=self.topic_keys.wrong_wraps,
        )

    async def _oldest_s(self) -> float:
        accepted_ms = await self.outbox_store.oldest_pending()
        return 0.0 if accepted_ms is None else (self.lived.now_ms() - accepted_ms) / 1000
