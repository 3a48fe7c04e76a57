"""The parts that every connection and every route of one broker works with."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from claudemesh.broker.accept import Acceptor
from claudemesh.broker.addresses import Addresses
from claudemesh.broker.announcer import Announcer
from claudemesh.broker.audit import Audit
from claudemesh.broker.cluster import Cluster
from claudemesh.broker.degraded import Degraded
from claudemesh.broker.feed import Feed
from claudemesh.broker.hub import Hub
from claudemesh.broker.jobs import Jobs
from claudemesh.broker.limiter.base import Limiter
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.presence import Presence
from claudemesh.broker.pulse import Pulse
from claudemesh.broker.queues import Queues
from claudemesh.broker.settings import BrokerSettings
from claudemesh.broker.state import State
from claudemesh.broker.store.base import Ack, Store
from claudemesh.runtime.batching import Batcher
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.lived import LivedClock


@dataclass(frozen=True, slots=True)
class Context:
    """One broker's parts. `clock` is for showing, `lived` for deciding (broker/timekeeper.py)."""

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
    state: State
    admin_token: bytes = field(repr=False)
    entropy: Callable[[int], bytes] = secrets.token_bytes
