"""Facets of the store: one protocol for each kind of data. Their promises stand in store/protocol.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from claudemesh.broker.store.moves import MoveStore
from claudemesh.broker.store.types import (
    Absent,
    AcceptOutcome,
    Ack,
    AuditEvent,
    Checked,
    CheckPosition,
    DedupeRow,
    DueDelivery,
    InviteRow,
    JobRun,
    Joined,
    JoinRefused,
    Member,
    MemberStatus,
    Mesh,
    NewKeys,
    NewSend,
    Page,
    PresenceRow,
    Rotated,
    RotationRefused,
    Seen,
    SendKey,
    Swept,
    Version,
)
from claudemesh.runtime.lived import Mark


class MeshStore(MoveStore, Protocol):
    """Meshes and their policies."""

    async def create(self, mesh: Mesh, owner: Member) -> bool:
        """Create a mesh with its owner and the topic `all`. False, and nothing written: the slug is taken."""
        ...

    async def get(self, mesh_id: str) -> Mesh | None:
        """Return a mesh, None when there is none of this id."""
        ...

    async def update(self, mesh: Mesh) -> bool:
        """Write the policies of a mesh. False: there is no such mesh."""
        ...

    async def all(self) -> Sequence[Mesh]:
        """Return every mesh, in the order of the slugs."""
        ...


class MemberStore(Protocol):
    """Members, their keys, and invites."""

    async def by_key(self, mesh_id: str, pubkey: str) -> Member | None:
        """Return the member whose current ed25519 key this is."""
        ...

    async def by_any_key(self, mesh_id: str, pubkey: str) -> Member | None:
        """Return the member that an ed25519 key belongs to, current or rotated out."""
        ...

    async def find(self, mesh_id: str, wanted: str) -> Member | None:
        """Return the member of a name, a current ed25519 key or a member id."""
        ...

    async def all(self, mesh_id: str) -> Sequence[Member]:
        """Return every member that ever joined, in the order of their names."""
        ...

    async def page(self, mesh_id: str, after: str, limit: int) -> Sequence[Member]:
        """Return members that ever joined, in the order of their names, from behind the name `after`."""
        ...

    async def privileged(self, mesh_id: str) -> Sequence[str]:
        """Return the ids of the active owners and admins."""
        ...

    async def set_profile(
        self,
        mesh_id: str,
        member_id: str,
        *,
        summary: str | None = None,
        status: str | None = None,
        visible: bool | None = None,
        sessions: str | None = None,
    ) -> None:
        """Change the given parts of a profile; None leaves a part as it is. `sessions` is JSON."""
        ...

    async def set_status(self, mesh_id: str, member_id: str, status: MemberStatus) -> bool:
        """Set a member's status. False: there is no such member."""
        ...

    async def register_invite(self, invite: InviteRow) -> bool:
        """Write an invite. False: it was known, and the content of the first registration stays."""
        ...

    async def forget_invites(self, mesh_id: str, pubkey: str, now_ms: int, keep: int) -> int:
        """Delete expired invites of an inviter, except the `keep` newest; return how many.

        Used and revoked invites stay. The others hold nothing that their links do not hold.
        """
        ...

    async def revoke_invite(self, mesh_id: str, invite_id: str, now_ms: int) -> None:
        """Revoke an invite for good, also one that was never registered."""
        ...

    async def invites(self, mesh_id: str, *, after: str = "", limit: int = 1000) -> Sequence[InviteRow]:
        """Return invites of a mesh in the order of their ids, from behind the id `after`."""
        ...

    async def join(self, invite: InviteRow, member: Member, now_ms: int) -> Joined | JoinRefused:
        """Take one use of an invite and write the member, in one transaction (`decisions.judge_join`)."""
        ...


class RotationStore(Protocol):
    """Rotations of members' keys."""

    async def rotate(self, mesh_id: str, new: NewKeys, now_ms: int) -> Rotated | RotationRefused:
        """Replace a member's keys, in one transaction (`decisions.judge_rotation`).

        The older keys become rotated out, each with its statement. The newest 260 of them are kept. The same
        rotation once more changes nothing.
        """
        ...


class DirectoryStore(Protocol):
    """The member list of each mesh by versions: pages of the whole list, and of changes since a version.

    Every change of a member that others see makes a new version, in the transaction that makes the change.
    Triggers do that, so that no statement forgets it. The token of a version is random: a version that a
    restored database has given to other changes is not taken for the one that a reader holds.
    """

    async def version(self, mesh_id: str) -> Version | None:
        """Return the newest version, None when there is no such mesh."""
        ...

    async def versions(self, mesh_ids: Collection[str]) -> Mapping[str, Version]:
        """Return the newest versions of some meshes."""
        ...

    async def page(self, mesh_id: str, since: Version | None, *, after: int = 0, limit: int) -> Page:
        """Return the changes since a version, or the whole list when that version is not known.

        `after` is the `next` of the page before, in a whole list.
        """
        ...


class MessageStore(Protocol):
    """Accepting sends and owing deliveries (docs/spec/broker.md, Accepting a send)."""

    async def lookup(self, keys: Collection[SendKey]) -> Mapping[SendKey, DedupeRow]:
        """Return the dedupe rows that exist for these keys (the phase `lookup`)."""
        ...

    async def accept(self, sends: Sequence[NewSend], now_ms: int) -> Sequence[AcceptOutcome]:
        """Check and write a batch of sends, each with its own outcome (the phases `check` and `write`).

        All effects of one send are committed, or none: its dedupe row, body, history row and deliveries.
        A send that cannot be written is `Failed` alone, and the others of its batch are written.
        """
        ...

    async def deliveries_due(
        self, mesh_id: str, member_id: str, *, exclude: Collection[int], limit: int
    ) -> Sequence[DueDelivery]:
        """Return the deliveries owed to a member without `exclude`: most urgent first, then oldest."""
        ...

    async def acknowledge(self, acks: Sequence[Ack]) -> int:
        """Delete acknowledged deliveries of the acknowledging members alone; returns how many there were."""
        ...

    async def deliveries_pending(self) -> int:
        """Return how many deliveries are owed in all meshes."""
        ...

    async def deliveries_owed(self, member_ids: Collection[str], most: int) -> Mapping[str, int]:
        """Return how many deliveries are owed to each of these members, each counted up to `most`."""
        ...


class QueueStore(Protocol):
    """Work queues: messages that wait, are given to one subscriber, and go back."""

    async def subscriptions(self, mesh_id: str, member_id: str) -> Sequence[str]:
        """Return the queues that a member is subscribed to."""
        ...

    async def waiting(self, mesh_id: str, queues: Sequence[str]) -> Collection[str]:
        """Return those of these queues that have messages without a recipient."""
        ...

    async def take(
        self, mesh_id: str, queue: str, member_ids: Sequence[str], limit: int
    ) -> Sequence[tuple[str, DueDelivery]]:
        """Give the oldest waiting messages of a queue, in turn, to the subscribed ones of these members."""
        ...

    async def release(self, mesh_id: str, member_id: str, connection_id: str, now_ms: int) -> Collection[str]:
        """Return unacknowledged messages of a member to their queues; returns the queues.

        On a shared database nothing happens while the member holds a lease of another connection. The
        embedded store leaves that to its caller.
        """
        ...

    async def release_lost(self, now_ms: int) -> Collection[tuple[str, str]]:
        """Return the messages of members without a lease to their queues; returns (mesh, queue) of each."""
        ...


class PresenceStore(Protocol):
    """Leases of connections, and when members were seen. Leases go by the lived clock."""

    async def open(self, rows: Sequence[PresenceRow]) -> None:
        """Write leases."""
        ...

    async def renew(self, broker_id: str, lease_until: int) -> None:
        """Extend every lease of a broker."""
        ...

    async def close(self, connection_ids: Collection[str]) -> None:
        """Remove leases."""
        ...

    async def clear(self, broker_id: str) -> None:
        """Remove every lease of a broker."""
        ...

    async def online(self, mesh_id: str, now_ms: int) -> frozenset[str]:
        """Return the ids of the members that hold a lease."""
        ...

    async def members_seen(self, seen: Sequence[Seen]) -> None:
        """Write when, and on which host, members were seen; one entry for each member."""
        ...

    async def last_seen(self, mesh_id: str, member_ids: Collection[str]) -> Mapping[str, int]:
        """Return when these members were seen last: active ones that are visible and were seen."""
        ...

    async def present_seen(self, broker_id: str, now_ms: int) -> None:
        """Write that every member with a lease of a broker is seen now."""
        ...


class AuditStore(Protocol):
    """Audit events, append-only but for the retention."""

    async def write(self, events: Sequence[AuditEvent]) -> None:
        """Append events."""
        ...

    async def newest(self, mesh_id: str, limit: int) -> Sequence[AuditEvent]:
        """Return the newest events of a mesh, newest first."""
        ...

    async def prune(self, mesh_id: str, lived_ms: int, before_ms: int, keep: int) -> int:
        """Delete one batch of a mesh's oldest events: before `before_ms`, or beyond the `keep` newest.

        Events of an older schema are stamped with `lived_ms` first. Returns how many were deleted.
        """
        ...


class UpkeepStore(Protocol):
    """The lived clock of the database, and the last run of each job."""

    async def lived_clock(self) -> Mark | None:
        """Return the position of the lived clock as last written; None in a new database."""
        ...

    async def note_lived_clock(self, mark: Mark, known_ms: int) -> int:
        """Write the position and, once in an hour of it, how far the history has come, in one transaction.

        Returns the position that holds: a later one of another broker, or an earlier one than the caller has
        known before, because the database was replaced. Nothing is written in either case. A crash loses the
        time since the last write, so that everything is kept a little longer.
        """
        ...

    async def job_runs(self) -> Mapping[str, JobRun]:
        """Return the last run of each job that has run, on any broker."""
        ...

    async def note_job(self, run: JobRun) -> None:
        """Write that a job has run."""
        ...


class RetentionStore(Protocol):
    """Retention, the removal of ephemeral members, and the check. Each call is one batch, one transaction."""

    async def sweep_messages(self, lived_ms: int, now_ms: int, after: int) -> Swept:
        """Delete messages past their mesh's retention that are owed to no member, oldest first.

        Body and history row go together with a tombstone and a mark on the dedupe row.
        """
        ...

    async def sweep_dedupe(self, lived_ms: int) -> int:
        """Delete dedupe rows past their time whose messages are gone; returns how many.

        That time is the mesh's retention or the one that the send was accepted under, the longer of the two.
        Where a whole batch has to wait, rows accepted later wait with it.
        """
        ...

    async def absent_ephemerals(self, lived_ms: int) -> Sequence[Absent]:
        """Return ephemeral members without a lease."""
        ...

    async def reap_ephemeral(self, absent: Sequence[Absent], lived_ms: int) -> Sequence[tuple[str, str]]:
        """Set members to `left` that are as absent as they were found; returns (mesh, member) of each."""
        ...

    async def end_ephemerals(self, lived_ms: int) -> Sequence[tuple[str, str]]:
        """Set ephemeral members to `left` whose time is over; returns (mesh, member) of each."""
        ...

    async def check(self, position: CheckPosition | None) -> Checked:
        """Look for orphaned rows in one batch of one table; accepts go on meanwhile."""
        ...


class UsageStore(Protocol):
    """Counts of rows and bytes for each member. Writing and deleting bodies keeps the byte counts."""

    async def stored(self, mesh_id: str) -> Mapping[str, int]:
        """Return the bytes of bodies that each member has stored; members without an entry have none."""
        ...

    async def recount(self) -> int:
        """Compare the stored counts with the bodies and correct them; returns how many were wrong."""
        ...

    async def topics_made(self, mesh_id: str, member_id: str) -> int:
        """Return how many topics and queues a member has created."""
        ...

    async def subscriptions_held(self, mesh_id: str, member_id: str) -> int:
        """Return how many subscriptions a member has."""
        ...

    async def invites_open(self, mesh_id: str, pubkey: str, now_ms: int) -> int:
        """Return how many invites of the member with this key can be used now."""
        ...


class RestoreStore(Protocol):
    """Repair after a restore from an older copy: members, and posts that subscribers are owed."""

    async def put_back_member(self, member: Member, invite_id: str | None) -> Joined | JoinRefused:
        """Write a member under the id that it had (`decisions.judge_put_back`).

        An invite that is known loses one use, if it has any left.
        """
        ...

    async def sealing_key_taken(self, mesh_id: str, x25519_pubkey: str) -> bool:
        """Return whether an x25519 key belongs, or has belonged, to a member of a mesh."""
        ...

    async def backfill(
        self, mesh_id: str, topic: str, member_id: str, *, since_ms: int, limit: int, now_ms: int
    ) -> int:
        """Owe a member the newest posts to a topic since a moment, except those owed; returns a count."""
        ...
