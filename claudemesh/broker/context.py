"""The parts that every connection and every route of one broker works with."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from claudemesh.broker.addresses import Addresses
from claudemesh.broker.cluster.cluster import Cluster
from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.degraded import Degraded
from claudemesh.broker.directory.feed import Feed
from claudemesh.broker.limiter.base import Limiter
from claudemesh.broker.messages.accept import Acceptor
from claudemesh.broker.messages.work_queues import Queues
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.presence.announcer import Announcer
from claudemesh.broker.presence.leases import Presence
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


@dataclass(frozen=True, slots=True)
class Context:
    """One broker's parts. `clock` is for showing, `lived` for deciding (broker/upkeep/timekeeper.py)."""

    settings: BrokerSettings
    addresses: Addresses
    clock: Clock
    lived: LivedClock
    store: Store
    hub: Hub
    limiter: Limiter
    acceptor: Acceptor
    acks: Batcher[Ack, None]
    presence: Presence
    announcer: Announcer
    cluster: Cluster
    feed: Feed
    queues: Queues
    jobs: Jobs
    audit: Audit
    degraded: Degraded
    pulse: Pulse
    metrics: BrokerMetrics
    mint: Callable[[], str]
    state: BrokerState
    admin_token: bytes = field(repr=False)
    entropy: Callable[[int], bytes] = secrets.token_bytes
