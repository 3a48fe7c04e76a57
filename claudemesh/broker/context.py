"""The parts of one broker that connections, calls and routes work with."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from claudemesh.broker.addresses import Addresses
from claudemesh.broker.blobs.service import Blobs
from claudemesh.broker.challenge import ChallengeKeys
from claudemesh.broker.cluster.cluster import Cluster
from claudemesh.broker.cluster.signals import Signals
from claudemesh.broker.cluster.sweep import Sweep
from claudemesh.broker.connections.clone_warnings import CloneWarnings
from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.degraded import Degraded
from claudemesh.broker.directory.feed import Feed
from claudemesh.broker.directory.profiles import Profiles
from claudemesh.broker.environment import Environment
from claudemesh.broker.key_news import KeyNews
from claudemesh.broker.limiter.base import Limiter
from claudemesh.broker.messages.accept import Acceptor
from claudemesh.broker.messages.work_queues import WorkQueues
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.presence.announcer import Announcer
from claudemesh.broker.presence.leases import Leases
from claudemesh.broker.rotation_pace import RotationPace
from claudemesh.broker.settings import BrokerSettings
from claudemesh.broker.state import BrokerState
from claudemesh.broker.store.protocol import Store
from claudemesh.broker.store.types import Ack
from claudemesh.broker.upkeep.audit import Audit
from claudemesh.broker.upkeep.jobs import Jobs
from claudemesh.broker.upkeep.pulse import Pulse
from claudemesh.runtime.batching import Batcher
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.lived import LivedClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One broker's parts, made in `app.py`. A part takes what it needs and never the whole context."""

    settings: BrokerSettings
    addresses: Addresses
    env: Environment
    store: Store
    hub: Hub
    clone_warnings: CloneWarnings
    signals: Signals
    limiter: Limiter
    acceptor: Acceptor
    acks: Batcher[Ack, None]
    leases: Leases
    announcer: Announcer
    cluster: Cluster
    sweep: Sweep
    feed: Feed
    profiles: Profiles
    queues: WorkQueues
    keys: KeyNews
    rotation_pace: RotationPace
    blobs: Blobs
    jobs: Jobs
    audit: Audit
    challenge: ChallengeKeys
    pulse: Pulse
    mint: Callable[[], str]
    state: BrokerState
    admin_token: bytes = field(repr=False)
    entropy: Callable[[int], bytes] = secrets.token_bytes

    @property
    def clock(self) -> Clock:
        """Wall time for showing, and durations."""
        return self.env.clock

    @property
    def lived(self) -> LivedClock:
        """The lived clock of the database, for decisions (upkeep/timekeeper.py)."""
        return self.env.lived

    @property
    def degraded(self) -> Degraded:
        """Takes reports of failures."""
        return self.env.degraded

    @property
    def metrics(self) -> BrokerMetrics:
        """Counters, gauges and histograms."""
        return self.env.metrics
