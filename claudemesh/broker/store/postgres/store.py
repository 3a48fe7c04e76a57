"""The `Store` on Postgres: every statement in `queries.sql`, whole transactions, errors of ours alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import asyncpg
import orjson

from claudemesh.broker.store.postgres import accept, members, work_queues
from claudemesh.broker.store.postgres.cluster import PostgresSharing
from claudemesh.broker.store.postgres.directory import PostgresListing
from claudemesh.broker.store.postgres.errors import (
    QUERY_CANCELED,
    TRANSIENT,
    UNIQUE_VIOLATION,
    state_of,
    text_of,
)
from claudemesh.broker.store.postgres.pools import Pools, committing_in_full
from claudemesh.broker.store.postgres.preflight import prepare_database
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.restoring import PostgresRestoring
from claudemesh.broker.store.postgres.upkeep import PostgresUpkeep
from claudemesh.broker.store.postgres.usage import PostgresShares
from claudemesh.broker.store.postgres.values import due_of, invite_of, lease_columns, mesh_of
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

# Who comes second finds the first one's row when it looks again.
_RACED = TRANSIENT | {UNIQUE_VIOLATION}


class PostgresStore(PostgresUpkeep):
    """The `Store` of brokers that share a database. `allow_unsafe` accepts a server that may forget."""

    def __init__(self, database_url: str, *, allow_unsafe: bool = False) -> None:
        self._database_url = database_url
        self._allow_unsafe = allow_unsafe
        self._pools: Pools | None = None

    @property
    def _db(self) -> Pools:
        if self._pools is None:
            raise RuntimeError("the store is not open")
        return self._pools

    # Lifecycle

    async def open(self) -> None:
        """Check the database, bring it up to date, and connect."""
        await prepare_database(self._database_url, allow_unsafe=self._allow_unsafe)
        self._pools = await Pools.open(self._database_url)

    async def close(self) -> None:
        """Close every connection."""
        pools, self._pools = self._pools, None
        if pools is not None:
            await pools.close()

    async def ping(self) -> None:
        """Return when the database answers."""
        await self._db.fetch(_Q["ping"])

    async def epoch(self) -> str:
        """Return which incarnation of the data this is."""
        return await self.shared.epoch()

    @cached_property
    def shared(self) -> PostgresSharing:
        """What brokers on this database need of it besides."""
        return PostgresSharing(self._database_url, self._db)

    @property
    def restoring(self) -> PostgresRestoring:
        """Put back state that a restore from an older copy has lost."""
        return PostgresRestoring(self._db)

    @property
    def listing(self) -> PostgresListing:
        """The member lists, by versions and pages."""
        return PostgresListing(self._db)

    @property
    def shares(self) -> PostgresShares:
        """What each member takes up."""
        return PostgresShares(self._db)

    # Meshes, members, invites

    async def mesh_create(self, mesh: Mesh, owner: Member) -> bool:
        """Make a mesh with its owner and the topic `all`; False, and nothing, when the slug is taken."""

        async def work(connection: Any) -> bool:
            tag = await connection.execute(
                _Q["mesh_insert"],
                mesh.id,
                mesh.slug,
                *policy_values(mesh),
                mesh.created_at,
            )
            if tag != "INSERT 0 1":
                return False
            topic = (mesh.id, DEFAULT_TOPIC, "topic", owner.id, mesh.created_at)
            await connection.execute(_Q["topic_insert"], *topic)
            await members.insert_member(connection, owner)
            return True

        return await self._db.transaction(work)

    async def mesh_get(self, mesh_id: str) -> Mesh | None:
        """Return a mesh."""
        rows = await self._db.fetch(_Q["mesh_get"], mesh_id)
        return mesh_of(rows[0]) if rows else None

    async def mesh_update(self, mesh: Mesh) -> bool:
        """Write a mesh's policies; False when there is no such mesh."""
        count = await self._db.execute(
            _Q["mesh_update"],
            *policy_values(mesh),
            mesh.id,
        )
        return count > 0

    async def mesh_list(self) -> Sequence[Mesh]:
        """Return every mesh, by slug."""
        return [mesh_of(row) for row in await self._db.fetch(_Q["mesh_list"])]

    async def member_by_key(self, mesh_id: str, pubkey: str) -> Member | None:
        """Return the member whose current key this is."""
        found = await self._db.run(
            lambda connection: members.members_by_key(connection, "member_current_by_key", mesh_id, pubkey)
        )
        return found[0] if found else None

    async def member_list(self, mesh_id: str) -> Sequence[Member]:
        """Return everybody who ever was a member, by name."""

        async def work(connection: Any) -> Sequence[Member]:
            rows = await connection.fetch(_Q["member_list"], mesh_id)
            return await members.with_earlier_keys(connection, mesh_id, rows)

        return await self._db.run(work)

    async def member_set_profile(
        self, mesh_id: str, member_id: str, *, summary: str | None, status: str | None, visible: bool | None
    ) -> None:
        """Change what is given."""
        await self._db.execute(_Q["member_set_profile"], summary, status, visible, mesh_id, member_id)

    async def member_set_status(self, mesh_id: str, member_id: str, status: MemberStatus) -> bool:
        """Set a member's status; False when there is no such member."""
        return await self._db.execute(_Q["member_set_status"], status, mesh_id, member_id) > 0

    async def invite_register(self, invite: InviteRow) -> bool:
        """Keep an invite; False when it was known, whose content then stays."""
        return await self._db.run(lambda connection: members.register(connection, invite))

    async def invite_revoke(self, mesh_id: str, invite_id: str, now_ms: int) -> bool:
        """Revoke an invite for good, known or not; False when the id is another mesh's."""
        return await self._db.execute(_Q["invite_revoke"], now_ms, mesh_id, invite_id) > 0

    async def invite_list(self, mesh_id: str, *, after: str = "", limit: int = 1000) -> Sequence[InviteRow]:
        """Return invites of a mesh by id, beginning behind one."""
        rows = await self._db.fetch(_Q["invite_list"], mesh_id, after, limit)
        return [invite_of(row) for row in rows]

    async def join(self, invite: InviteRow, member: Member, now_ms: int) -> Joined | JoinRefused:
        """Take one use of an invite and write the member, in one transaction."""
        try:
            return await self._db.transaction(
                lambda connection: members.join(connection, invite, member, now_ms), retried=_RACED
            )
        except members.Rejected as rejected:
            return rejected.outcome

    # Topics

    async def topic_create(
        self, mesh_id: str, topic: str, mode: TopicMode, member_id: str, now_ms: int
    ) -> bool:
        """Make a topic; False when there is one of this name."""
        return await self._db.execute(_Q["topic_insert"], mesh_id, topic, mode, member_id, now_ms) > 0

    async def topic_subscribe(self, mesh_id: str, topic: str, member_id: str, now_ms: int) -> bool:
        """Subscribe a member, once; False when there is no such topic."""
        [row] = await self._db.fetch(_Q["topic_subscribe"], mesh_id, topic, member_id, now_ms)
        return bool(row[0])

    async def topic_unsubscribe(self, mesh_id: str, topic: str, member_id: str) -> bool:
        """Unsubscribe a member; False when it was not subscribed."""
        return await self._db.execute(_Q["topic_unsubscribe"], mesh_id, topic, member_id) > 0

    async def topic_list(
        self, mesh_id: str, member_id: str, *, after: str = "", limit: int = 1000, counts: bool = True
    ) -> Sequence[TopicRow]:
        """Return topics as a member sees them, by name, beginning behind a name."""
        rows = await self._db.fetch(_Q["topic_list"], mesh_id, member_id, after, limit, counts)
        return [TopicRow(*row) for row in rows]

    # Accepting and delivering

    async def lookup(self, keys: Collection[SendKey]) -> Mapping[SendKey, DedupeRow]:
        """Return the dedupe rows of these keys (phase lookup)."""
        columns = (
            [key.mesh_id for key in keys],
            [key.sender_member_id for key in keys],
            [key.client_message_id for key in keys],
        )
        rows = await self._db.fetch(_Q["dedupe_find"], *columns, accepting=True)
        return dict(accept.dedupe_of(row) for row in rows)

    async def accept(self, sends: Sequence[NewSend], now_ms: int) -> Sequence[AcceptOutcome]:
        """Carry a batch through check and write in one commit; a batch that fails as a whole is split."""
        outcomes: dict[int, AcceptOutcome] = {}
        # The function wants keys that differ: a second send of a key follows the first, or tries after it.
        queues: dict[SendKey, deque[int]] = {}
        for index, send in enumerate(sends):
            queues.setdefault(send.key, deque()).append(index)
        while queues:
            heads = [queue.popleft() for queue in queues.values()]
            found = await self._accept([sends[head] for head in heads], now_ms)
            for head, outcome in zip(heads, found, strict=True):
                outcomes[head] = outcome
                queue = queues[sends[head].key]
                while queue and (same := accept.follow(sends[head], outcome, sends[queue[0]])):
                    outcomes[queue.popleft()] = same
            queues = {key: queue for key, queue in queues.items() if queue}
        return [outcomes[index] for index in range(len(sends))]

    async def _accept(self, sends: Sequence[NewSend], now_ms: int) -> Sequence[AcceptOutcome]:
        try:
            outcomes = await self._accept_at_once(sends, now_ms)
        except StorageError as error:
            # Rolled back, for it took too long: it may have been too many recipients at once.
            if len(sends) == 1 or state_of(error.__cause__) != QUERY_CANCELED:
                raise
            return await self._accept_in_parts(sends, now_ms, len(sends) // 2)
        except (asyncpg.PostgresError, ValueError) as error:
            if len(sends) == 1:
                return [Failed(f"{type(error).__name__}: {text_of(error)}")]
            return await self._accept_in_parts(sends, now_ms, 1)
        if any(isinstance(outcome, Accepted) for outcome in outcomes):
            failpoint("accept.after_commit")
        return outcomes

    async def _accept_in_parts(
        self, sends: Sequence[NewSend], now_ms: int, size: int
    ) -> Sequence[AcceptOutcome]:
        outcomes: list[AcceptOutcome] = []
        for start in range(0, len(sends), size):
            outcomes += await self._accept(sends[start : start + size], now_ms)
        return outcomes

    async def _accept_at_once(self, sends: Sequence[NewSend], now_ms: int) -> Sequence[AcceptOutcome]:
        values = accept.arguments(sends, now_ms)

        async def work(connection: Any) -> Sequence[Any]:
            with committing_in_full(connection):
                rows: Sequence[Any] = await connection.fetch(_Q["accept"], *values)
            return rows

        rows = await self._db.run(work, accepting=True)
        return accept.outcomes_of(rows, sends, now_ms)

    async def deliveries_due(
        self, mesh_id: str, member_id: str, *, exclude: Collection[int], limit: int
    ) -> Sequence[DueDelivery]:
        """Return what a member is owed, most urgent first, then oldest, but for `exclude`."""
        rows = await self._db.fetch(_Q["deliveries_due"], mesh_id, member_id, list(exclude), limit)
        return [due_of(row) for row in rows]

    async def queue_subscriptions(self, mesh_id: str, member_id: str) -> Sequence[str]:
        """Return the queues that a member takes from."""
        return [row[0] for row in await self._db.fetch(_Q["queue_subscriptions"], mesh_id, member_id)]

    async def queue_take(
        self, mesh_id: str, queue: str, member_ids: Sequence[str], limit: int
    ) -> Sequence[tuple[str, DueDelivery]]:
        """Give the oldest waiting messages of a queue, in turn, to those of these members that may take."""
        return await work_queues.take(self._db, mesh_id, queue, member_ids, limit)

    async def queue_release(
        self, mesh_id: str, member_id: str, connection_id: str, now_ms: int
    ) -> Collection[str]:
        """Take back what a member holds, unless it has a lease of another connection; returns the queues."""
        return await work_queues.release(self._db, mesh_id, member_id, connection_id, now_ms)

    async def queue_release_lost(self, now_ms: int) -> Collection[tuple[str, str]]:
        """Take back what members hold that have no lease; returns (mesh, queue) of each queue."""
        return await work_queues.release_lost(self._db, now_ms)

    async def acknowledge(self, acks: Sequence[Ack]) -> int:
        """Delete acknowledged rows of their own recipients; returns how many there were."""
        # In one order everywhere, so that two brokers do not lock one another out.
        rows = sorted((number, ack.member_id, ack.mesh_id) for ack in acks for number in ack.delivery_ids)
        if not rows:
            return 0
        columns = [list(column) for column in zip(*rows, strict=True)]
        return await self._db.execute(_Q["acknowledge"], *columns, accepting=True)

    async def deliveries_pending(self) -> int:
        """Return how many deliveries are owed in all."""
        [row] = await self._db.fetch(_Q["deliveries_pending"])
        return int(row[0])

    # Presence and audit

    async def presence_open(self, rows: Sequence[PresenceRow]) -> None:
        """Write connections' leases."""
        await self._db.execute(_Q["presence_open"], *lease_columns(rows))

    async def presence_renew(self, broker_id: str, lease_until: int) -> None:
        """Extend every lease of a broker."""
        await self._db.execute(_Q["presence_renew"], lease_until, broker_id)

    async def presence_close(self, connection_ids: Collection[str]) -> None:
        """Remove the leases of connections that ended."""
        await self._db.execute(_Q["presence_close"], list(connection_ids))

    async def presence_clear(self, broker_id: str) -> None:
        """Remove what a broker left behind."""
        await self._db.execute(_Q["presence_clear"], broker_id)

    async def presence_online(self, mesh_id: str, now_ms: int) -> frozenset[str]:
        """Return the members that hold a lease."""
        rows = await self._db.fetch(_Q["presence_online"], mesh_id, now_ms)
        return frozenset(str(row[0]) for row in rows)

    async def members_seen(self, seen: Sequence[Seen]) -> None:
        """Note when, and on which host, members were here; one entry for each."""
        entries = sorted(seen, key=lambda entry: entry.member_id)
        await self._db.execute(
            _Q["members_seen"],
            [entry.mesh_id for entry in entries],
            [entry.member_id for entry in entries],
            [entry.at_ms for entry in entries],
            [entry.host for entry in entries],
        )

    async def present_seen(self, broker_id: str, now_ms: int) -> None:
        """Note that everybody is here who holds a lease of a broker."""
        await self._db.execute(_Q["present_seen"], now_ms, broker_id)

    async def audit_write(self, events: Sequence[AuditEvent]) -> None:
        """Append events."""
        await self._db.execute(
            _Q["audit_write"],
            [event.mesh_id for event in events],
            [event.kind for event in events],
            [event.member_id for event in events],
            [orjson.dumps(event.data).decode() for event in events],
            [event.created_at for event in events],
            [event.lived_ms for event in events],
        )

    async def audit_list(self, mesh_id: str, limit: int) -> Sequence[AuditEvent]:
        """Return a mesh's newest events, newest first."""
        rows = await self._db.fetch(_Q["audit_list"], mesh_id, limit)
        return [
            AuditEvent(str(row[0]), row[1], row[2] and str(row[2]), row[3], orjson.loads(row[4]))
            for row in rows
        ]
