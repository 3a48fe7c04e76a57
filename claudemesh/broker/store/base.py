"""The `Store` protocol of a broker, its rows and its errors.

Two engines implement it and one contract suite holds both to it. Everything here is
plain data; ids are strings as they travel (UUIDs, ULIDs, hex keys), times are Unix
milliseconds, hashes and signatures are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from claudemesh.broker.lives import Life
from claudemesh.broker.roster import Lease
from claudemesh.broker.store.listing import Listing
from claudemesh.broker.store.presence_rows import PresenceRow as PresenceRow
from claudemesh.broker.store.presence_rows import Seen as Seen
from claudemesh.broker.store.shares import Shares
from claudemesh.broker.store.upkeep_rows import Absent as Absent
from claudemesh.broker.store.upkeep_rows import Checked as Checked
from claudemesh.broker.store.upkeep_rows import CheckPosition as CheckPosition
from claudemesh.broker.store.upkeep_rows import Finding as Finding
from claudemesh.broker.store.upkeep_rows import JobRun as JobRun
from claudemesh.broker.store.upkeep_rows import Swept as Swept
from claudemesh.runtime.lived import Mark

Role: TypeAlias = Literal["owner", "admin", "member"]
MemberStatus: TypeAlias = Literal["active", "revoked", "left"]
DestinationKind: TypeAlias = Literal["dm", "topic", "queue"]
TopicMode: TypeAlias = Literal["topic", "queue"]

DEFAULT_TOPIC = "all"

# How far the history has come is noted this often, in lived time.
HORIZON_EVERY_MS = 3_600_000
# A message whose id was given out before a note of the history may be committed this long after it.
LATEST_COMMIT_MS = 60_000


@dataclass(frozen=True, slots=True)
class Mesh:
    """A mesh and its policies (broker.md, Storage)."""

    id: str
    slug: str
    created_at: int
    clone_concurrency_policy: str = "prefer_newest"
    dedupe_retention_mode: str = "retention_scoped"
    dedupe_retention_days: int = 365
    message_retention_days: int = 90
    rate_limit_per_minute: int = 120_000
    member_rate_limit_per_minute: int = 30_000
    member_bytes_per_minute: int = 268_435_456
    stored_bytes: int = 1 << 37
    member_stored_bytes: int = 1 << 34
    member_topics: int = 1000
    member_subscriptions: int = 10_000
    member_invites: int = 1000
    audit_retention_days: int = 365
    audit_events: int = 100_000


@dataclass(frozen=True, slots=True)
class Member:
    """A member as the broker keeps it; `earlier_pubkeys` are its rotated-out keys."""

    id: str
    mesh_id: str
    name: str
    role: Role
    status: MemberStatus
    ed25519_pubkey: str
    x25519_pubkey: str
    x25519_signature: bytes
    key_id: str
    ephemeral: bool
    created_at: int
    summary: str | None = None
    presence_status: str | None = None
    visible: bool = True
    last_seen_at: int | None = None
    last_seen_host_fingerprint: bytes | None = None
    earlier_pubkeys: tuple[str, ...] = ()
    # Versions of the mesh's member list, given by the store (listing.py).
    changed_version: int = field(default=0, compare=False)
    joined_version: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class InviteRow:
    """An invite as registered; `used_count` never passes `max_uses`."""

    id: str
    mesh_id: str
    role: Role
    created_by: str
    expires_at: int
    max_uses: int
    used_count: int = 0
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """The join went through; `created` is False when the same key had joined before by the same name."""

    member: Member
    created: bool


@dataclass(frozen=True, slots=True)
class JoinRefused:
    """The join wrote nothing. `error` is one of invite_expired, invite_exhausted, invite_revoked,
    not_authorized (the inviter is not an active owner or admin), name_taken, id_taken, key_taken."""

    error: str


@dataclass(frozen=True, slots=True)
class TopicRow:
    """A topic or queue as one member sees it."""

    topic: str
    mode: TopicMode
    created_at: int
    subscribed: bool
    subscribers: int | None  # None where they were not counted


@dataclass(frozen=True, slots=True)
class SendKey:
    """The dedupe key: an id belongs to the member that uses it."""

    mesh_id: str
    sender_member_id: str
    client_message_id: str


@dataclass(frozen=True, slots=True)
class NewSend:
    """A send that passed B1: ready to be claimed and written. `envelope` is the frozen JSON."""

    key: SendKey
    broker_message_id: str
    request_fingerprint: bytes
    destination_kind: DestinationKind
    destination_ref: str
    priority: int
    mentions: tuple[str, ...]
    envelope: bytes


@dataclass(frozen=True, slots=True)
class DedupeRow:
    """What a committed accept left behind for its id."""

    broker_message_id: str
    history_id: int
    request_fingerprint: bytes
    destination_kind: DestinationKind
    destination_ref: str
    first_seen_at: int
    history_available: bool = True


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A delivery row written by an accept: who is owed the message, under which id."""

    delivery_id: int
    recipient_member_id: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """First insert: all five side effects are committed."""

    history_id: int
    accepted_at: int
    deliveries: tuple[NewDelivery, ...] = ()


@dataclass(frozen=True, slots=True)
class Existing:
    """The id was taken before; the caller compares fingerprints (equal: duplicate; else conflict)."""

    row: DedupeRow


@dataclass(frozen=True, slots=True)
class Refused:
    """B2 said no; nothing was written. `error`: not_a_member, destination_not_found."""

    error: str


@dataclass(frozen=True, slots=True)
class Failed:
    """This message alone could not be written (its neighbours were); the outcome is transient."""

    reason: str


AcceptOutcome: TypeAlias = Accepted | Existing | Refused | Failed


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """An undelivered row with everything a `deliver` frame needs."""

    delivery_id: int
    broker_message_id: str
    history_id: int
    sender_member_id: str
    sender_name: str
    sender_pubkey: str
    accepted_at: int
    priority: int
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """A recipient says that these deliveries are durable in its inbox; only its own rows count."""

    mesh_id: str
    member_id: str
    delivery_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """An append-only record of something an operator may ask about later."""

    mesh_id: str
    kind: str
    member_id: str | None
    created_at: int
    data: Mapping[str, object] = field(default_factory=dict)
    lived_ms: int = 0


class Shared(Protocol):
    """What brokers on one database need of it besides the `Store`. Raises `StorageError`."""

    async def now_ms(self) -> int: ...
    async def epoch(self) -> str: ...
    async def life(self) -> Life: ...

    mark: int | None
    on_marks: Callable[[bool], None]

    async def marks_differ(self, mark: int) -> bool: ...
    async def signal(self, payloads: Sequence[str]) -> None: ...
    async def listen(
        self, hear: Callable[[str], None], resumed: Callable[[], None], worked: Callable[[], None]
    ) -> None: ...

    # Leases, of every broker
    async def claim(
        self, row: PresenceRow, admits: Callable[[Sequence[PresenceRow]], bool]
    ) -> Sequence[PresenceRow]: ...
    async def leases(self, mesh_ids: Collection[str], now_ms: int) -> Mapping[str, Sequence[Lease]]: ...
    async def without_lease(self, connection_ids: Collection[str]) -> Collection[str]: ...
    async def expire(self, now_ms: int) -> None: ...
    async def has_company(self, broker_id: str) -> bool: ...

    # What was done elsewhere
    async def deliveries_since(
        self, after: int | None, member_ids: Collection[str]
    ) -> tuple[int, Sequence[tuple[int, str]]]: ...
    async def inactive(self, member_ids: Collection[str]) -> Collection[str]: ...


class Restoring(Protocol):
    """What puts back state that a restore from an older copy has lost. Raises `StorageError`."""

    async def put_back_member(self, member: Member, invite_id: str | None) -> Joined | JoinRefused:
        """Write a member under the id that it had. An invite that is known loses one use, if it has any.

        A key that is a member already is answered with it (`created` False). `JoinRefused`: id_taken,
        name_taken, key_taken.
        """
        ...

    async def sealing_key_taken(self, mesh_id: str, x25519_pubkey: str) -> bool:
        """Whether an x25519 key belongs, or has belonged, to a member of a mesh."""
        ...

    async def backfill(
        self, mesh_id: str, topic: str, member_id: str, *, since_ms: int, limit: int, now_ms: int
    ) -> int:
        """Owe a member the newest posts to a topic since a moment, but for those owed; returns a count."""
        ...


class Store(Protocol):
    """Everything a broker keeps. Raises `StorageUnavailable` when the outcome is unknown or transient."""

    # Lifecycle
    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def ping(self) -> None: ...
    async def epoch(self) -> str: ...
    @property
    def shared(self) -> Shared | None: ...
    @property
    def restoring(self) -> Restoring: ...
    @property
    def listing(self) -> Listing: ...
    @property
    def shares(self) -> Shares: ...

    # Meshes, members, invites
    async def mesh_create(self, mesh: Mesh, owner: Member) -> bool: ...
    async def mesh_get(self, mesh_id: str) -> Mesh | None: ...
    async def mesh_update(self, mesh: Mesh) -> bool: ...
    async def mesh_list(self) -> Sequence[Mesh]: ...
    async def member_by_key(self, mesh_id: str, pubkey: str) -> Member | None: ...
    async def member_list(self, mesh_id: str) -> Sequence[Member]: ...
    async def member_set_profile(
        self, mesh_id: str, member_id: str, *, summary: str | None, status: str | None, visible: bool | None
    ) -> None: ...
    async def member_set_status(self, mesh_id: str, member_id: str, status: MemberStatus) -> bool: ...
    async def invite_register(self, invite: InviteRow) -> bool: ...
    async def invite_revoke(self, mesh_id: str, invite_id: str, now_ms: int) -> bool: ...
    async def invite_list(
        self, mesh_id: str, *, after: str = "", limit: int = 1000
    ) -> Sequence[InviteRow]: ...
    async def join(self, invite: InviteRow, member: Member, now_ms: int) -> Joined | JoinRefused: ...

    # Topics
    async def topic_create(
        self, mesh_id: str, topic: str, mode: TopicMode, member_id: str, now_ms: int
    ) -> bool: ...
    async def topic_subscribe(self, mesh_id: str, topic: str, member_id: str, now_ms: int) -> bool: ...
    async def topic_unsubscribe(self, mesh_id: str, topic: str, member_id: str) -> bool: ...
    async def topic_list(
        self, mesh_id: str, member_id: str, *, after: str = "", limit: int = 1000, counts: bool = True
    ) -> Sequence[TopicRow]: ...

    # Accepting and delivering
    async def lookup(self, keys: Collection[SendKey]) -> Mapping[SendKey, DedupeRow]: ...
    async def accept(self, sends: Sequence[NewSend], now_ms: int) -> Sequence[AcceptOutcome]: ...
    async def deliveries_due(
        self, mesh_id: str, member_id: str, *, exclude: Collection[int], limit: int
    ) -> Sequence[DueDelivery]: ...
    async def queue_subscriptions(self, mesh_id: str, member_id: str) -> Sequence[str]: ...
    async def queue_take(
        self, mesh_id: str, queue: str, member_ids: Sequence[str], limit: int
    ) -> Sequence[tuple[str, DueDelivery]]: ...
    async def queue_release(
        self, mesh_id: str, member_id: str, connection_id: str, now_ms: int
    ) -> Collection[str]: ...
    async def queue_release_lost(self, now_ms: int) -> Collection[tuple[str, str]]: ...
    async def acknowledge(self, acks: Sequence[Ack]) -> int: ...
    async def deliveries_pending(self) -> int: ...

    # Presence and audit
    async def presence_open(self, rows: Sequence[PresenceRow]) -> None: ...
    async def presence_renew(self, broker_id: str, lease_until: int) -> None: ...
    async def presence_close(self, connection_ids: Collection[str]) -> None: ...
    async def presence_clear(self, broker_id: str) -> None: ...
    async def presence_online(self, mesh_id: str, now_ms: int) -> frozenset[str]: ...
    async def members_seen(self, seen: Sequence[Seen]) -> None: ...
    async def present_seen(self, broker_id: str, now_ms: int) -> None: ...
    async def audit_write(self, events: Sequence[AuditEvent]) -> None: ...
    async def audit_list(self, mesh_id: str, limit: int) -> Sequence[AuditEvent]: ...

    # Time: the database's lived clock, and what is decided by it
    async def lived_clock(self) -> Mark | None: ...
    async def lived_clock_note(self, mark: Mark, known_ms: int) -> int: ...
    async def job_runs(self) -> Mapping[str, JobRun]: ...
    async def job_note(self, run: JobRun) -> None: ...

    # Retention: each call is one batch. `lived_ms` decides, `now_ms` is wall time for showing
    async def sweep_messages(self, lived_ms: int, now_ms: int, after: int) -> Swept: ...
    async def sweep_dedupe(self, lived_ms: int) -> int: ...
    async def absent_ephemerals(self, lived_ms: int) -> Sequence[Absent]: ...
    async def reap_ephemeral(self, absent: Sequence[Absent], lived_ms: int) -> Sequence[tuple[str, str]]: ...
    async def check(self, position: CheckPosition | None) -> Checked: ...
