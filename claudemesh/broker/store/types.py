"""Rows of a broker's store, plain data for both engines.

Ids are strings as they travel (UUIDs, ULIDs, hex keys), times are Unix milliseconds, hashes and signatures
are bytes. Rows of which every send makes one are named tuples, as the rows of the database are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from msgspec import Struct

from claudemesh.protocol.wire import DEFAULT_CONNECTION_POLICY
from claudemesh.protocol.wire import DestinationKind as DestinationKind
from claudemesh.protocol.wire import MemberStatus as MemberStatus
from claudemesh.protocol.wire import Role as Role
from claudemesh.protocol.wire import TopicMode as TopicMode

DEFAULT_TOPIC = "all"

# Interval of the history horizons, in lived time.
HORIZON_EVERY_MS = 3_600_000
# A message whose id was given out before a horizon may be committed this long after it.
LATEST_COMMIT_MS = 60_000

_VERSION = re.compile(r"(\d{1,18})-([0-9a-f]{32})")


class Mesh(Struct, frozen=True):
    """A mesh and its policies (docs/spec/broker.md, Policies)."""

    id: str
    slug: str
    created_at: int
    clone_concurrency_policy: str = DEFAULT_CONNECTION_POLICY
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
    """A member as the broker keeps it.

    `earlier_pubkeys` are its rotated-out keys, oldest first, and `rotations` the statements that lead to the
    present one, as JSON.
    """

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
    sessions: str | None = None  # as JSON
    visible: bool = True
    last_seen_at: int | None = None
    last_seen_host_fingerprint: bytes | None = None
    ends_lived_ms: int | None = None  # of an ephemeral member
    earlier_pubkeys: tuple[str, ...] = ()
    rotations: tuple[str, ...] = ()
    statements: tuple[str, ...] = field(default=(), compare=False)  # read by the directory alone
    # Versions of the mesh's member list, given by the store (`Version`).
    changed_version: int = field(default=0, compare=False)
    joined_version: int = field(default=0, compare=False)


class InviteRow(Struct, frozen=True):
    """A registered invite; `used_count` never exceeds `max_uses`."""

    id: str
    mesh_id: str
    role: Role
    created_by: str
    expires_at: int
    max_uses: int
    used_count: int = 0
    revoked_at: int | None = None


class Joined(Struct, frozen=True):
    """A join that succeeded; `created` is False when the same key and name had joined before."""

    member: Member
    created: bool


class JoinRefused(Struct, frozen=True):
    """A join that wrote nothing. `error` is one of invite_expired, invite_exhausted, invite_revoked,
    not_authorized (the inviter is not an active owner or admin), name_taken, id_taken, key_taken."""

    error: str


class KeyStep(Struct, frozen=True):
    """One verified rotation: the older key, the newer keys, and its statement as JSON."""

    old_pubkey: str
    pubkey: str
    x25519_pubkey: str
    statement: str


class NewKeys(Struct, frozen=True):
    """The keys that a member rotates to, and the verified rotations that lead to them, oldest first.

    A member that rotates once gives one step. After a restore it may give several of earlier times.
    """

    x25519_signature: bytes
    key_id: str
    steps: tuple[KeyStep, ...]

    @property
    def pubkey(self) -> str:
        """The ed25519 key after the last step."""
        return self.steps[-1].pubkey

    @property
    def x25519_pubkey(self) -> str:
        """The x25519 key after the last step."""
        return self.steps[-1].x25519_pubkey


class Rotated(Struct, frozen=True):
    """A rotation that is in force; `changed` is False when it was before."""

    member: Member
    changed: bool


class RotationRefused(Struct, frozen=True):
    """A rotation that wrote nothing. `error` is one of not_a_member, key_rotated_out (another rotation of the
    member came first), key_taken."""

    error: str


class SendKey(NamedTuple):
    """The idempotency key of a send: the client_message_id of one member."""

    mesh_id: str
    sender_member_id: str
    client_message_id: str


class NewSend(NamedTuple):
    """A validated send, ready to be claimed and written. `envelope` is the frozen JSON."""

    key: SendKey
    broker_message_id: str
    request_fingerprint: bytes
    destination_kind: DestinationKind
    destination_ref: str
    priority: int
    envelope: bytes
    key_epoch: int | None = None  # None for a dm


class DedupeRow(NamedTuple):
    """The record of an accepted send, by its idempotency key."""

    broker_message_id: str
    history_id: int
    request_fingerprint: bytes
    destination_kind: DestinationKind
    destination_ref: str
    first_seen_at: int
    history_available: bool = True


class NewDelivery(NamedTuple):
    """A delivery written by an accept: its id and its recipient."""

    delivery_id: int
    recipient_member_id: str


class Accepted(NamedTuple):
    """An accepted send: all five side effects are committed."""

    history_id: int
    accepted_at: int
    deliveries: tuple[NewDelivery, ...] = ()


class Existing(Struct, frozen=True):
    """A send whose idempotency key is taken: a duplicate when the fingerprints are equal, else a conflict."""

    row: DedupeRow


class Refused(Struct, frozen=True):
    """The check phase refused a send and wrote nothing.

    `error`: not_a_member, destination_not_found, key_epoch_expired, key_epoch_unknown.
    """

    error: str


class Failed(Struct, frozen=True):
    """A send that could not be written, though others of its batch were; the sender may retry."""

    reason: str


AcceptOutcome: TypeAlias = Accepted | Existing | Refused | Failed


class DueDelivery(Struct, frozen=True):
    """A delivery that is owed, with everything that its `deliver` frame needs."""

    delivery_id: int
    broker_message_id: str
    history_id: int
    sender_member_id: str
    sender_name: str
    sender_pubkey: str
    accepted_at: int
    priority: int
    envelope: bytes


class Ack(Struct, frozen=True):
    """A recipient says that these deliveries are durable in its inbox; only its own rows count."""

    mesh_id: str
    member_id: str
    delivery_ids: tuple[int, ...]


class AuditEvent(Struct, frozen=True):
    """An append-only record of something an operator may ask about later."""

    mesh_id: str
    kind: str
    member_id: str | None
    created_at: int
    data: Mapping[str, object] = field(default_factory=dict)
    lived_ms: int = 0


class PresenceRow(Struct, frozen=True):
    """One connection's lease; it counts as online until `lease_until`. Both times are of the lived clock."""

    connection_id: str
    member_id: str
    mesh_id: str
    broker_id: str
    connected_at: int
    lease_until: int
    instance_id: str = ""


class Seen(Struct, frozen=True):
    """A member was here at this wall time, on this host if it named one."""

    mesh_id: str
    member_id: str
    at_ms: int
    host: bytes | None


class Lease(Struct, frozen=True):
    """A member's connection at a broker, as the database has it."""

    broker_id: str
    member_id: str
    visible: bool


class Life(Struct, frozen=True):
    """One life of a database server: its start, and the newest history id that it has given out."""

    server_started: str
    newest_history: int


class Absent(Struct, frozen=True):
    """An ephemeral member without a lease; another `last_seen_at` says that it has been here in between."""

    mesh_id: str
    member_id: str
    last_seen_at: int | None


class JobRun(Struct, frozen=True):
    """The last run of a job: `lived_ms` is decided by, `finished_at` is wall time for showing."""

    job: str
    lived_ms: int
    finished_at: int
    count: int
    found: int


class Swept(Struct, frozen=True):
    """One batch of a sweep: how many went, and where the next begins (None: there is none)."""

    count: int
    after: int | None


class Finding(Struct, frozen=True):
    """Something that an accept or a sweep never leaves behind: what is wrong, and with which message."""

    kind: str
    broker_message_id: str


CheckPosition: TypeAlias = tuple[str, Any]  # the table, and the last key that was looked at there


class Checked(Struct, frozen=True):
    """One batch of a check: what was found, how many rows were looked at, and where to go on."""

    findings: tuple[Finding, ...]
    rows: int
    position: CheckPosition | None


class Version(Struct, frozen=True):
    """A version of a mesh's member list. As text it is the number and the token."""

    number: int
    token: str

    def __str__(self) -> str:
        return f"{self.number}-{self.token}"


def parse_version(text: str) -> Version | None:
    """Return the version that a text names, None when it names none."""
    match = _VERSION.fullmatch(text)
    return None if match is None else Version(int(match[1]), match[2])


class Page(Struct, frozen=True):
    """One page of the list.

    `is_whole`: the page belongs to a whole list, in which those who have left are missing; otherwise it holds
    changes, and members that have left are among them. `next` is where the following page begins, None on the
    last one. `version` is that of a reader of this page; None on all pages of a whole list but the last one.
    """

    members: tuple[Member, ...]
    version: Version | None
    next: int | None
    is_whole: bool
