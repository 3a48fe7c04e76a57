"""The history of a run: plain records of what was sent, answered, received and done to the cluster.

Times are seconds of the harness's monotonic clock. The checks judge these records and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

DM, TOPIC, QUEUE = "dm", "topic", "queue"
DONE, DEAD = "done", "dead"


@dataclass(slots=True)
class Send:
    """One message of the workload, and every answer that its callers got."""

    id: str
    sender: str
    kind: str
    destination: str
    # Messages of one stream are sent one after the other: the next only when this one is acknowledged.
    stream: str
    number: int
    text: str
    began_s: float
    accepted_s: float | None = None
    broker_ids: set[str] = field(default_factory=set)
    # Final refusals (4xx), as `status code`.
    refusals: list[str] = field(default_factory=list)
    # The error that the workload provokes on purpose, such as a topic that does not exist.
    provokes: str | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A row of an inbox at the end."""

    member: str
    seq: int
    id: str
    sender: str
    text: str
    broker_id: str | None
    history_id: int | None
    acked: bool


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A row of an outbox at the end."""

    member: str
    id: str
    status: str
    last_error: str | None
    broker_id: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """A message that a reader of the event stream was shown."""

    member: str
    seq: int
    id: str


@dataclass(frozen=True, slots=True)
class Upset:
    """A fault that was carried out. `members` are the daemons whose link or process it can have touched."""

    number: int
    kind: str
    target: str
    members: frozenset[str]
    graceful: bool
    began_s: float
    ended_s: float
    evidence: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Process that ended by itself."""

    process: str
    code: int
    # When it was found ended. A loaded machine finds it late.
    at_s: float
    # Whether it had started, or ended while it tried to.
    has_served: bool = True
    # When it was seen running last, if that is known: it ended between this moment and `at_s`.
    alive_s: float | None = None


@dataclass(frozen=True, slots=True)
class Gauge:
    """A measure of a process before the faults and after them, and the most that is accepted after."""

    process: str
    name: str
    before: int
    after: int
    limit: int


@dataclass(slots=True)
class History:
    """Everything that a run left behind."""

    sends: list[Send] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    outbox: list[OutboxRow] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    upsets: list[Upset] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    gauges: list[Gauge] = field(default_factory=list)
    # (member, id of the message) that a reader marked as done, with a 200.
    marked: set[tuple[str, str]] = field(default_factory=set)
    subscribers: dict[str, frozenset[str]] = field(default_factory=dict)
    # Sends whose frames a proxy saw refused for now, or dropped: their order is not promised.
    detained: set[str] = field(default_factory=set)
    # (process, lines of its log that say so).
    tracebacks: list[tuple[str, str]] = field(default_factory=list)
    # (process, entries of its health that should not be there).
    unhealthy: list[tuple[str, str]] = field(default_factory=list)
    broker_findings: list[str] = field(default_factory=list)
    drawn: set[str] = field(default_factory=set)
