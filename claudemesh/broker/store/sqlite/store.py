"""The embedded store: one SQLite file, one connection, whole transactions (broker.md, Storage)."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import orjson

from claudemesh.broker.store.sqlite import work_queues
from claudemesh.broker.store.sqlite.accept import accept_batch, find_dedupe
from claudemesh.broker.store.sqlite.directory import SqliteListing
from claudemesh.broker.store.sqlite.members import insert_member, join_member, read_members, register_invite
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.sqlite.restoring import SqliteRestoring
from claudemesh.broker.store.sqlite.upkeep import SqliteUpkeep
from claudemesh.broker.store.sqlite.usage import SqliteShares
from claudemesh.broker.store.types import (
    DEFAULT_TOPIC,
    Accepted,
    AcceptOutcome,
    Ack,
    AuditEvent,
    DedupeRow,
    DueDelivery,
    Failed,
    InviteRow,
    Joined,
    JoinRefused,
    Member,
    MemberStatus,
    Mesh,
    NewSend,
    PresenceRow,
    Seen,
    SendKey,
    TopicMode,
    TopicRow,
    policy_values,
)
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.migrations import load_migrations
from claudemesh.runtime.sqlite import Database, OnFailure


class SqliteStore(SqliteUpkeep):
    """The `Store` of an embedded broker."""

    def __init__(self, path: Path, on_failure: OnFailure | None = None) -> None:
        self._path = path
        self._on_failure = on_failure
        self._database: Database | None = None

    @property
    def database(self) -> Database:
        """The file, for its upkeep."""
        return self._db

    @property
    def _db(self) -> Database:
        if self._database is None:
            raise RuntimeError("the store is not open")
        return self._database

    # Lifecycle

    async def open(self) -> None:
        """Open or create the file and bring it up to date."""
        migrations = load_migrations("claudemesh.broker.store.sqlite.migrations")
        self._database = await Database.open(self._path, migrations, self._on_failure)

    async def close(self) -> None:
        """Close the file."""
        database, self._database = self._database, None
        if database is not None:
            await database.close()

    async def ping(self) -> None:
        """Return when the database answers."""
        await self._db.run(lambda raw: raw.execute("SELECT 1").fetchone())

    async def epoch(self) -> str:
        """Return which incarnation of the data this is."""
        row = await self._db.run(lambda raw: raw.execute(_Q["epoch"]).fetchone())
        return str(row[0])

    async def renew_epoch(self, epoch: str) -> None:
        """This is another incarnation of the data: it has forgotten something."""
        await self._db.transaction(lambda raw: raw.execute(_Q["renew_epoch"], (epoch,)))

    async def newest_history(self) -> int:
        """Return the newest message's history id, whether or not it is still there."""
        row = await self._db.run(lambda raw: raw.execute(_Q["newest_history"]).fetchone())
        return 0 if row is None else int(row[0])

    @property
    def shared(self) -> None:
        """No other broker opens this file."""

    @property
    def restoring(self) -> SqliteRestoring:
        """Put back state that a restore from an older copy has lost."""
        return SqliteRestoring(self._db)

    @property
    def listing(self) -> SqliteListing:
        """The member lists, by versions and pages."""
        return SqliteListing(self._db)

    @property
    def shares(self) -> SqliteShares:
        """What each member takes up."""
        return SqliteShares(self._db)

    # Meshes, members, invites

    async def mesh_create(self, mesh: Mesh, owner: Member) -> bool:
        """Make a mesh with its owner and the topic `all`; False, and nothing, when the slug is taken."""

        def work(raw: sqlite3.Connection) -> bool:
            values = (
                mesh.id,
                mesh.slug,
                *policy_values(mesh),
                mesh.created_at,
            )
            if raw.execute(_Q["mesh_insert"], values).rowcount == 0:
                return False
            topic = (mesh.id, DEFAULT_TOPIC, "topic", owner.id, mesh.created_at)
            raw.execute(_Q["topic_insert"], topic)
            insert_member(raw, owner)
            return True

        return await self._db.transaction(work)

    async def mesh_get(self, mesh_id: str) -> Mesh | None:
        """Return a mesh."""
        row = await self._db.run(lambda raw: raw.execute(_Q["mesh_get"], (mesh_id,)).fetchone())
        return None if row is None else Mesh(*row)

    async def mesh_update(self, mesh: Mesh) -> bool:
        """Write a mesh's policies; False when there is no such mesh."""
        values = (
            *policy_values(mesh),
            mesh.id,
        )
        return await self._db.transaction(lambda raw: raw.execute(_Q["mesh_update"], values).rowcount > 0)

    async def mesh_list(self) -> Sequence[Mesh]:
        """Return every mesh, by slug."""
        rows = await self._db.run(lambda raw: raw.execute(_Q["mesh_list"]).fetchall())
        return [Mesh(*row) for row in rows]

    async def member_by_key(self, mesh_id: str, pubkey: str) -> Member | None:
        """Return the member whose current key this is."""

        def work(raw: sqlite3.Connection) -> Member | None:
            found = read_members(raw, raw.execute(_Q["member_current_by_key"], (mesh_id, pubkey)))
            return found[0] if found else None

        return await self._db.run(work)

    async def member_list(self, mesh_id: str) -> Sequence[Member]:
        """Return everybody who ever was a member, by name."""
        return await self._db.run(lambda raw: read_members(raw, raw.execute(_Q["member_list"], (mesh_id,))))

    async def member_set_profile(
        self, mesh_id: str, member_id: str, *, summary: str | None, status: str | None, visible: bool | None
    ) -> None:
        """Change what is given."""
        values = (summary, status, visible, mesh_id, member_id)
        await self._db.transaction(lambda raw: raw.execute(_Q["member_set_profile"], values))

    async def member_set_status(self, mesh_id: str, member_id: str, status: MemberStatus) -> bool:
        """Set a member's status; False when there is no such member."""
        values = (status, mesh_id, member_id)
        return await self._db.transaction(
            lambda raw: raw.execute(_Q["member_set_status"], values).rowcount > 0
        )

    async def invite_register(self, invite: InviteRow) -> bool:
        """Keep an invite; False when it was known, whose content then stays."""
        return await self._db.transaction(lambda raw: register_invite(raw, invite))

    async def invite_revoke(self, mesh_id: str, invite_id: str, now_ms: int) -> bool:
        """Revoke an invite for good, known or not; False when the id is another mesh's."""
        values = (now_ms, mesh_id, invite_id)
        return await self._db.transaction(lambda raw: raw.execute(_Q["invite_revoke"], values).rowcount > 0)

    async def invite_list(self, mesh_id: str, *, after: str = "", limit: int = 1000) -> Sequence[InviteRow]:
        """Return invites of a mesh by id, beginning behind one."""
        values = (mesh_id, after, limit)
        rows = await self._db.run(lambda raw: raw.execute(_Q["invite_list"], values).fetchall())
        return [InviteRow(*row) for row in rows]

    async def join(self, invite: InviteRow, member: Member, now_ms: int) -> Joined | JoinRefused:
        """Take one use of an invite and write the member, in one transaction."""

        def work(raw: sqlite3.Connection) -> Joined | JoinRefused:
            outcome = join_member(raw, invite, member, now_ms)
            if isinstance(outcome, JoinRefused):
                raise _Rejected(outcome)
            return outcome

        try:
            return await self._db.transaction(work)
        except _Rejected as rejected:
            return rejected.outcome

    # Topics

    async def topic_create(
        self, mesh_id: str, topic: str, mode: TopicMode, member_id: str, now_ms: int
    ) -> bool:
        """Make a topic; False when there is one of this name."""
        values = (mesh_id, topic, mode, member_id, now_ms)
        return await self._db.transaction(lambda raw: raw.execute(_Q["topic_insert"], values).rowcount > 0)

    async def topic_subscribe(self, mesh_id: str, topic: str, member_id: str, now_ms: int) -> bool:
        """Subscribe a member, once; False when there is no such topic."""

        def work(raw: sqlite3.Connection) -> bool:
            if raw.execute(_Q["topic_exists"], (mesh_id, topic)).fetchone() is None:
                return False
            raw.execute(_Q["topic_subscribe"], (mesh_id, topic, member_id, now_ms))
            return True

        return await self._db.transaction(work)

    async def topic_unsubscribe(self, mesh_id: str, topic: str, member_id: str) -> bool:
        """Unsubscribe a member; False when it was not subscribed."""
        values = (mesh_id, topic, member_id)
        return await self._db.transaction(
            lambda raw: raw.execute(_Q["topic_unsubscribe"], values).rowcount > 0
        )

    async def topic_list(
        self, mesh_id: str, member_id: str, *, after: str = "", limit: int = 1000, counts: bool = True
    ) -> Sequence[TopicRow]:
        """Return topics as a member sees them, by name, beginning behind a name."""
        values = (mesh_id, member_id, after, limit, counts)
        rows = await self._db.run(lambda raw: raw.execute(_Q["topic_list"], values).fetchall())
        return [TopicRow(name, mode, made, bool(mine), count) for name, mode, made, mine, count in rows]

    # Accepting and delivering

    async def lookup(self, keys: Collection[SendKey]) -> Mapping[SendKey, DedupeRow]:
        """Return the dedupe rows of these keys (phase lookup)."""
        return await self._db.run(lambda raw: find_dedupe(raw, keys))

    async def accept(self, sends: Sequence[NewSend], now_ms: int) -> Sequence[AcceptOutcome]:
        """Carry a batch through check and write in one commit; a batch that fails is tried one by one."""
        try:
            return await self._accept(sends, now_ms)
        except StorageError:
            raise
        except sqlite3.Error as error:
            if len(sends) == 1:
                return [Failed(f"{type(error).__name__}: {error}")]
        outcomes: list[AcceptOutcome] = []
        for send in sends:
            outcomes += await self.accept([send], now_ms)
        return outcomes

    async def _accept(self, sends: Sequence[NewSend], now_ms: int) -> Sequence[AcceptOutcome]:
        def work(raw: sqlite3.Connection) -> Sequence[AcceptOutcome]:
            outcomes = accept_batch(raw, sends, now_ms)
            failpoint("accept.before_commit")
            return outcomes

        outcomes = await self._db.transaction(work)
        if any(isinstance(outcome, Accepted) for outcome in outcomes):
            failpoint("accept.after_commit")
        return outcomes

    async def deliveries_due(
        self, mesh_id: str, member_id: str, *, exclude: Collection[int], limit: int
    ) -> Sequence[DueDelivery]:
        """Return what a member is owed, most urgent first, then oldest, but for `exclude`."""
        values = (mesh_id, member_id, orjson.dumps(sorted(exclude)).decode(), limit)
        rows = await self._db.run(lambda raw: raw.execute(_Q["deliveries_due"], values).fetchall())
        return [DueDelivery(*row) for row in rows]

    async def queue_subscriptions(self, mesh_id: str, member_id: str) -> Sequence[str]:
        """Return the queues that a member takes from."""
        return await self._db.run(lambda raw: work_queues.subscriptions(raw, mesh_id, member_id))

    async def queue_take(
        self, mesh_id: str, queue: str, member_ids: Sequence[str], limit: int
    ) -> Sequence[tuple[str, DueDelivery]]:
        """Give the oldest waiting messages of a queue, in turn, to those of these members that may take."""
        return await self._db.transaction(
            lambda raw: work_queues.take(raw, mesh_id, queue, member_ids, limit)
        )

    async def queue_release(
        self, mesh_id: str, member_id: str, connection_id: str, now_ms: int
    ) -> Collection[str]:
        """Take back what a member holds; returns the queues. Its caller knows that it is not connected."""
        rows = await self._db.transaction(
            lambda raw: raw.execute(_Q["queue_release"], (mesh_id, member_id)).fetchall()
        )
        return {row[0] for row in rows}

    async def queue_release_lost(self, now_ms: int) -> Collection[tuple[str, str]]:
        """Take back what members hold that have no lease; returns (mesh, queue) of each queue."""
        rows = await self._db.transaction(
            lambda raw: raw.execute(_Q["queue_release_lost"], (now_ms,)).fetchall()
        )
        return {(row[0], row[1]) for row in rows}

    async def acknowledge(self, acks: Sequence[Ack]) -> int:
        """Delete acknowledged rows of their own recipients; returns how many there were."""
        rows = [(number, ack.member_id, ack.mesh_id) for ack in acks for number in ack.delivery_ids]
        return await self._db.transaction(
            lambda raw: raw.executemany(_Q["acknowledge"], rows).rowcount if rows else 0
        )

    async def deliveries_pending(self) -> int:
        """Return how many deliveries are owed in all."""
        row = await self._db.run(lambda raw: raw.execute(_Q["deliveries_pending"]).fetchone())
        return int(row[0])

    # Presence and audit

    async def presence_open(self, rows: Sequence[PresenceRow]) -> None:
        """Write connections' leases."""
        values = [
            (
                row.connection_id,
                row.member_id,
                row.mesh_id,
                row.broker_id,
                row.connected_at,
                row.lease_until,
                row.instance_id,
            )
            for row in rows
        ]
        await self._db.transaction(lambda raw: raw.executemany(_Q["presence_open"], values))

    async def presence_renew(self, broker_id: str, lease_until: int) -> None:
        """Extend every lease of a broker."""
        values = (lease_until, broker_id)
        await self._db.transaction(lambda raw: raw.execute(_Q["presence_renew"], values))

    async def presence_close(self, connection_ids: Collection[str]) -> None:
        """Remove the leases of connections that ended."""
        rows = [(connection_id,) for connection_id in connection_ids]
        await self._db.transaction(lambda raw: raw.executemany(_Q["presence_close"], rows))

    async def presence_clear(self, broker_id: str) -> None:
        """Remove what a broker left behind."""
        await self._db.transaction(lambda raw: raw.execute(_Q["presence_clear"], (broker_id,)))

    async def presence_online(self, mesh_id: str, now_ms: int) -> frozenset[str]:
        """Return the members that hold a lease."""
        rows = await self._db.run(
            lambda raw: raw.execute(_Q["presence_online"], (mesh_id, now_ms)).fetchall()
        )
        return frozenset(row[0] for row in rows)

    async def members_seen(self, seen: Sequence[Seen]) -> None:
        """Note when, and on which host, members were here; one entry for each."""
        values = [(entry.at_ms, entry.host, entry.mesh_id, entry.member_id) for entry in seen]
        await self._db.transaction(lambda raw: raw.executemany(_Q["member_seen"], values))

    async def present_seen(self, broker_id: str, now_ms: int) -> None:
        """Note that everybody is here who holds a lease of a broker."""
        await self._db.transaction(lambda raw: raw.execute(_Q["present_seen"], (now_ms, broker_id)))

    async def audit_write(self, events: Sequence[AuditEvent]) -> None:
        """Append events."""
        rows = [
            (
                *(event.mesh_id, event.kind, event.member_id, orjson.dumps(event.data).decode()),
                *(event.created_at, event.lived_ms),
            )
            for event in events
        ]
        await self._db.transaction(lambda raw: raw.executemany(_Q["audit_write"], rows))

    async def audit_list(self, mesh_id: str, limit: int) -> Sequence[AuditEvent]:
        """Return a mesh's newest events, newest first."""
        rows = await self._db.run(lambda raw: raw.execute(_Q["audit_list"], (mesh_id, limit)).fetchall())
        return [AuditEvent(row[0], row[1], row[2], row[3], orjson.loads(row[4])) for row in rows]


class _Rejected(Exception):
    """Rolls a join back and carries why."""

    def __init__(self, outcome: JoinRefused) -> None:
        super().__init__(outcome.error)
        self.outcome = outcome
