"""Decisions of the store: verdicts over rows that were read, the same for both engines. No I/O.

An engine reads what a decision needs, inside its transaction, and writes what the decision says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from claudemesh.broker.store.types import (
    Finding,
    InviteRow,
    Joined,
    JoinRefused,
    KeyStep,
    Member,
    Mesh,
    NewKeys,
    Page,
    Rotated,
    RotationRefused,
    Swept,
    Version,
)
from claudemesh.protocol.ids import ulid_from_bytes
from claudemesh.protocol.rotation import MAX_STATEMENTS

# Rows of one batch of a sweep or a check.
BATCH_ROWS: Final = 500
# Rows of one batch of the audit pruning.
PRUNE_ROWS: Final = 500
# Rotated-out keys of a member that are kept. Peers follow as many rotations.
EARLIER_KEYS: Final = MAX_STATEMENTS
# The tables of a check, in its order. A stage is named like its query.
CHECK_STAGES: Final = (
    "check_dedupe",
    "check_queue_bodies",
    "check_topic_bodies",
    "check_history",
    "check_deliveries",
)
DEDUPE_FINDINGS: Final = ("dedupe_without_body", "dedupe_without_history", "dedupe_without_tombstone")
# Every kind of finding of the check.
FINDING_KINDS: Final = (*DEDUPE_FINDINGS, *(stage.replace("check", "orphan") for stage in CHECK_STAGES[1:]))

K = TypeVar("K")
_LAST_ID: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"


def may_invite(status: str, role: str, invited_role: str) -> bool:
    """Return whether a member may invite: an active owner to any role, an active admin to all but owner."""
    if status != "active" or role == "member":
        return False
    return role == "owner" or invited_role != "owner"


class Taken(Struct, frozen=True):
    """Collisions of a new member: the member that has its ed25519 key, and whether other values are taken."""

    same_key: Member | None
    sealing_key: bool
    name: bool
    member_id: bool


def judge_join(invite: InviteRow, member: Member, taken: Taken, now_ms: int) -> Joined | JoinRefused | None:
    """Decide a join by the registered invite. None: take one use of the invite and write the member.

    A member that joins again with the same key and name is answered with its row. A use that cannot be taken
    is `invite_exhausted`, which the caller finds out.
    """
    if taken.same_key is not None:
        is_same = taken.same_key.name == member.name and taken.same_key.status == "active"
        return Joined(taken.same_key, created=False) if is_same else JoinRefused("key_taken")
    if taken.sealing_key:
        return JoinRefused("key_taken")
    if invite.revoked_at is not None:
        return JoinRefused("invite_revoked")
    if invite.expires_at <= now_ms:
        return JoinRefused("invite_expired")
    if taken.name:
        return JoinRefused("name_taken")
    return JoinRefused("id_taken") if taken.member_id else None


def judge_put_back(taken: Taken) -> Joined | JoinRefused | None:
    """Decide whether a member is written under the id that it had. None: write it.

    When the key belongs to a member already, the answer is that member, also under another name.
    """
    if taken.same_key is not None:
        return Joined(taken.same_key, created=False)
    if taken.member_id:
        return JoinRefused("id_taken")
    if taken.name:
        return JoinRefused("name_taken")
    return JoinRefused("key_taken") if taken.sealing_key else None


def steps_from(member: Member | None, new: NewKeys) -> tuple[KeyStep, ...]:
    """Return the steps that lead from a member's current key to the new ones; none from another key."""
    if member is None:
        return ()
    places = [place for place, step in enumerate(new.steps) if step.old_pubkey == member.ed25519_pubkey]
    return new.steps[places[0] :] if places else ()


def judge_rotation(
    holder: Member | None, owner: Member | None, new: NewKeys, *, taken: bool
) -> Rotated | RotationRefused | None:
    """Decide a rotation. None: write the steps from the holder's current key.

    `holder` is the member that has, or had, the older key of a step. `owner` is the member that has, or had,
    the new key. `taken`: another new key of the steps is a member's already.
    """
    if owner is not None and owner.status == "active":
        is_done = (owner.ed25519_pubkey, owner.x25519_pubkey) == (new.pubkey, new.x25519_pubkey)
        if is_done and holder is not None and holder.id == owner.id:
            return Rotated(owner, changed=False)
    if holder is None or holder.status != "active":
        return RotationRefused("not_a_member")
    if not steps_from(holder, new):
        return RotationRefused("key_rotated_out")
    return RotationRefused("key_taken") if owner is not None or taken else None


def name_cursor(after: str) -> tuple[str, str]:
    """Return the name and the member id behind which a page of members by name begins.

    A cursor is `NAME/MEMBER_ID`; a name alone means every member of that name.
    """
    name, _, member_id = after.partition("/")
    return name, member_id or _LAST_ID


class HistoryRow(Struct, Generic[K], frozen=True):
    """A row of the history: its id, and the message and the mesh that it is about."""

    history_id: int
    message: K
    mesh: K


def past_retention(rows: Sequence[HistoryRow[K]], limits: Mapping[K, int]) -> list[HistoryRow[K]]:
    """Return the rows that their mesh's retention no longer keeps: up to the history id in `limits`."""
    return [row for row in rows if row.history_id <= limits.get(row.mesh, 0)]


def swept(rows: Sequence[HistoryRow[K]], limits: Mapping[K, int], count: int) -> Swept:
    """Return the end of one batch of the message sweep, which read `rows` and deleted `count` of them.

    The next batch begins behind the last row. There is none when the history ended, or when every mesh keeps
    what follows.
    """
    if not rows:
        return Swept(count, None)
    newest = rows[-1].history_id
    is_done = len(rows) < BATCH_ROWS or newest >= max(limits.values(), default=0)
    return Swept(count, None if is_done else newest)


def dedupe_findings(
    broker_message_id: str, *, available: bool, has_body: bool, has_history: bool, has_tombstone: bool
) -> list[Finding]:
    """Return what is wrong with a dedupe row, by whether its message is said to be available."""
    wrong = (available and not has_body, available and not has_history, not available and not has_tombstone)
    kinds = zip(DEDUPE_FINDINGS, wrong, strict=True)
    return [Finding(kind, broker_message_id) for kind, is_so in kinds if is_so]


def next_position(stage: str, last: Any, count: int) -> tuple[str, Any] | None:
    """Return where a check goes on: behind `last`, or in the next table, which is read from its start."""
    if count == BATCH_ROWS:
        return stage, last
    following = CHECK_STAGES.index(stage) + 1
    return (CHECK_STAGES[following], None) if following < len(CHECK_STAGES) else None


def page_of(rows: Sequence[Member], limit: int, newest: Version | None, *, is_whole: bool) -> Page:
    """Return the page of at most `limit` members of rows, one more than that when there are more.

    The newest version was read first: what has changed since belongs to the next one.
    """
    rows = [row for row in rows if newest is not None and row.changed_version <= newest.number]
    members = tuple(rows[:limit])
    if len(rows) > limit:
        return Page(members, None, members[-1].changed_version, is_whole)
    return Page(members, newest, None, is_whole)


def first_id_since(since_ms: int) -> str:
    """Return the smallest broker_message_id of a moment: ids begin with the broker's time."""
    return ulid_from_bytes(since_ms.to_bytes(6, "big") + bytes(10))


def policy_values(mesh: Mesh) -> tuple[Any, ...]:
    """Return a mesh's policies in the order in which both engines write them."""
    return (
        mesh.clone_concurrency_policy,
        mesh.dedupe_retention_mode,
        mesh.dedupe_retention_days,
        mesh.message_retention_days,
        mesh.rate_limit_per_minute,
        mesh.member_rate_limit_per_minute,
        mesh.member_bytes_per_minute,
        mesh.stored_bytes,
        mesh.member_stored_bytes,
        mesh.member_topics,
        mesh.member_subscriptions,
        mesh.member_invites,
        mesh.audit_retention_days,
        mesh.audit_events,
    )
