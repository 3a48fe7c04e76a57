"""What every connection and every route of one broker works with."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from claudemesh.broker.accept import Acceptor
from claudemesh.broker.audit import Audit
from claudemesh.broker.hub import Hub
from claudemesh.broker.jobs import Jobs
from claudemesh.broker.limiter.base import Limiter
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.presence import Presence
from claudemesh.broker.settings import BrokerSettings
from claudemesh.broker.store.base import Ack, Store
from claudemesh.runtime.batching import Batcher
from claudemesh.runtime.clock import Clock


@dataclass(slots=True)
class State:
    """What changes while a broker runs."""

    draining: bool = False
    handshakes: int = 0


@dataclass(frozen=True, slots=True)
class Context:
    """One broker's parts. `epoch` names this life of the database (protocol.md, hello_ack)."""

    settings: BrokerSettings
    clock: Clock
    store: Store
    hub: Hub
    limiter: Limiter
    acceptor: Acceptor
    acks: Batcher[Ack, None]
    presence: Presence
    jobs: Jobs
    audit: Audit
    metrics: BrokerMetrics
    mint: Callable[[], str]
    epoch: str
    admin_token: bytes = field(repr=False)
    state: State = field(default_factory=State)
    entropy: Callable[[int], bytes] = secrets.token_bytes
