"""Query plans: every statement per message uses an index (docs/performance.md, Last results)."""

from __future__ import annotations

import re

import pytest

from claudemesh.broker.store.postgres import PostgresStore
from claudemesh.broker.store.types import Accepted, Ack, Member, PresenceRow, Seen
from tests.support.postgres import shared_server, sql
from tests.support.stores import NOW, World, database, member, new_mesh, new_ulid

# Tables that grow with meshes, members or messages.
GROWING = {
    "audit_event",
    "client_message_dedupe",
    "delivery_queue",
    "directory",
    "directory_token",
    "history_horizon",
    "member",
    "member_key",
    "mesh",
    "message_history",
    "message_queue",
    "presence",
    "topic",
    "topic_message",
    "topic_subscription",
}
_EXPLAINED = (
    "ALTER DATABASE {name} SET session_preload_libraries = 'auto_explain'",
    "ALTER DATABASE {name} SET auto_explain.log_min_duration = 0",
    "ALTER DATABASE {name} SET auto_explain.log_nested_statements = on",
    "ALTER DATABASE {name} SET auto_explain.log_analyze = on",
)
# A table read as a whole: by itself, or through an index without a condition.
_WHOLE = re.compile(
    r"Seq Scan on (\w+)"
    r"|(?:Index Scan|Index Only Scan|Bitmap Index Scan).* on (\w+)[^\n]*\n(?!\s*Index Cond)"
)
# Rows that a step of a plan passed on, and rows that it read in vain.
_ROWS = re.compile(r"actual time=\S+ rows=(\d+)|Rows Removed by \w+(?: \w+)?: (\d+)")
_BATCH = 600
# Largest number of rows of a batch of a sweep or a check in one step of a plan.
_SWEPT = 2_000
_HISTORY = """
CREATE TEMPORARY TABLE old AS
SELECT md5('m' || n)::uuid AS id, 1000000 + n AS history_id, m.mesh_id, m.id AS sender, 'old-' || n AS name
FROM mesh.member AS m, generate_series(1, 20000) AS n WHERE m.name = 'alice';
INSERT INTO mesh.client_message_dedupe
SELECT mesh_id, name, id, history_id, '\\x00', 'dm', '', sender, now(), now() + interval '1 year' FROM old;
INSERT INTO mesh.message_queue SELECT id, mesh_id, name, 'dm', '', sender, '\\x00', now() FROM old;
INSERT INTO mesh.topic_message SELECT id, mesh_id, name, 'all', sender, '\\x00', now() FROM old;
INSERT INTO mesh.message_history SELECT history_id, id, mesh_id, 'dm', '', sender, now() FROM old;
SELECT setval('mesh.message_history_history_id_seq', 2000000);
INSERT INTO mesh.delivery_queue (broker_message_id, mesh_id, recipient_member_id, priority, enqueued_at)
SELECT id, mesh_id, sender, 1, now() FROM old;
INSERT INTO mesh.member
SELECT md5('p' || n)::uuid, mesh_id, 'p' || n, 'member', 'active', sha256(n::text::bytea), '\\x00',
       '\\x00', 'k', false, NULL, NULL, true, NULL, NULL, now()
FROM mesh.member, generate_series(1, 2000) AS n WHERE name = 'alice';
INSERT INTO mesh.member_key SELECT 'k', mesh_id, id, ed25519_pubkey, '\\x00', 'current', now(), NULL
FROM mesh.member ON CONFLICT DO NOTHING;
INSERT INTO mesh.topic_subscription SELECT mesh_id, 'other', id, now() FROM mesh.member;
INSERT INTO mesh.presence SELECT id::text, id, mesh_id, 'other', now(), now() + interval '1 day'
FROM mesh.member;
INSERT INTO mesh.history_horizon SELECT n, 1000000 + n FROM generate_series(1, 20000) AS n;
INSERT INTO mesh.audit_event (mesh_id, kind, data, created_at)
SELECT md5(id::text)::uuid, 'x', '{}', now() FROM mesh.member;
"""


async def ordinary_traffic(w: World, name: str) -> None:
    """Every statement of a message's way, often enough for the server to settle on its plans."""
    bob = await w.join(name)
    for size in (1, 1, 1, 1, 1, 1, 1, 128, 128):
        sends = [w.dm(w.owner, bob) for _ in range(size)]
        sends += [w.post(w.owner, "all") for _ in range(size)]
        sends += [w.post(w.owner, "nowhere"), *sends[:1]]
        await w.store.messages.lookup([send.key for send in sends])
        outcomes = await w.store.messages.accept(sends, NOW)
        await w.store.messages.accept(sends, NOW)
        owed = [row for one in outcomes if isinstance(one, Accepted) for row in one.deliveries]
        ids = tuple(row.delivery_id for row in owed if row.recipient_member_id == bob.id)
        assert len(ids) == 2 * size
        due = await w.store.messages.deliveries_due(w.mesh.id, bob.id, exclude=ids[:1], limit=256)
        assert len(due) == 2 * size - 1
        # A member with a backlog.
        await w.store.messages.deliveries_due(w.mesh.id, w.owner.id, exclude=(), limit=256)
        assert await w.store.messages.acknowledge([Ack(w.mesh.id, bob.id, ids)]) == len(ids)
        assert await w.store.members.by_key(w.mesh.id, bob.ed25519_pubkey) is not None
        await w.store.presence.members_seen([Seen(w.mesh.id, bob.id, NOW, None)] * size)
        row = PresenceRow(new_ulid(), bob.id, w.mesh.id, "here", NOW, NOW + 1)
        await w.store.presence.open([row])
        await w.store.presence.renew("here", NOW + 2)
        await w.store.presence.present_seen("here", NOW)
        await w.store.presence.close([row.connection_id])
        await w.store.audit.newest(w.mesh.id, 10)
        await queue_traffic(w, bob.id, size)
        await sharing_traffic(w, bob.id)
        await listing_traffic(w, bob)


async def queue_traffic(w: World, worker: str, size: int) -> None:
    """A work queue's way: waiting, taken, given back, taken back, acknowledged."""
    await w.store.topics.create(w.mesh.id, "jobs", "queue", w.owner.id, NOW)
    await w.store.topics.subscribe(w.mesh.id, "jobs", worker, NOW)
    await w.store.messages.accept([w.to_queue(w.owner, "jobs") for _ in range(size)], NOW)
    assert list(await w.store.queues.subscriptions(w.mesh.id, worker)) == ["jobs"]
    many = [f"queue-{number}" for number in range(512)]
    assert list(await w.store.queues.waiting(w.mesh.id, [*many, "jobs"])) == ["jobs"]
    for _ in range(2):
        rows = await w.store.queues.take(w.mesh.id, "jobs", [worker], 256)
        assert len(rows) == size
        await w.store.queues.release(w.mesh.id, worker, "c1", NOW)
        await w.store.queues.release_lost(NOW)
    rows = await w.store.queues.take(w.mesh.id, "jobs", [worker], 256)
    ids = tuple(row.delivery_id for _, row in rows)
    assert await w.store.messages.acknowledge([Ack(w.mesh.id, worker, ids)]) == size


async def listing_traffic(w: World, bob: Member) -> None:
    """Run the queries of daemons and joins about the members of a mesh."""
    listing, mesh_id = w.store.directory, w.mesh.id
    before = await listing.version(mesh_id)
    assert before is not None
    assert (await listing.page(mesh_id, before, limit=100)).members == ()
    await w.store.members.set_profile(mesh_id, bob.id, summary=new_ulid(), status=None, visible=None)
    assert [one.id for one in (await listing.page(mesh_id, before, limit=100)).members] == [bob.id]
    assert (await listing.page(mesh_id, None, after=1, limit=100)).is_whole
    assert mesh_id in await listing.versions([mesh_id])
    for wanted in (bob.id, bob.name, bob.ed25519_pubkey):
        assert await w.store.members.find(mesh_id, wanted) is not None
    assert await w.store.members.by_any_key(mesh_id, bob.ed25519_pubkey) is not None
    assert await w.store.members.privileged(mesh_id) == [w.owner.id]


async def sharing_traffic(w: World, member_id: str) -> None:
    """Run the queries of brokers about one another."""
    shared = w.store.cluster
    assert shared is not None
    row = w.lease(member_id, until=NOW + 1)
    await shared.acquire_lease(row, lambda rows: True)
    await shared.without_lease([row.connection_id])
    await shared.expire(NOW - 10**9)
    await shared.has_company("broker-1")
    newest, _ = await shared.deliveries_since(None, [])
    await shared.deliveries_since(newest, [member_id])
    await shared.inactive([member_id])
    # The messages of a member go back to their queues only when it has no lease.
    await w.store.presence.close([row.connection_id])


async def test_no_sweep_and_no_check_reads_more_than_its_batch() -> None:
    """They run beside the accepts, on tables that are large: a batch is a batch."""
    async with database() as url:
        store = PostgresStore(url)
        await store.open()
        mesh = new_mesh()
        await store.meshes.create(mesh, member(mesh.id, "alice", role="owner"))
        await store.close()
        await sql(url, _HISTORY, "ANALYZE")
        name = await sql(url, "SELECT current_database()")
        await sql(url, *(statement.format(name=name) for statement in _EXPLAINED))
        log = shared_server().log
        before = log.stat().st_size
        await store.open()
        later = NOW + 400 * 86_400_000
        for _ in range(7):
            await store.retention.sweep_messages(later, NOW, 0)
            await store.retention.sweep_dedupe(later)
            await store.retention.reap_ephemeral(await store.retention.absent_ephemerals(later), later)
        position = None
        for _ in range(40):
            position = (await store.retention.check(position)).position
            if position is None:
                break
        await store.close()
        explained = log.read_bytes()[before:].decode()
    plans = [plan for plan in explained.split("Query Text: ") if "mesh." in plan]
    assert len(plans) > 30
    # How long each mesh keeps its messages is asked of all meshes.
    assert [plan[:20_000] for plan in plans if whole_tables(plan) & GROWING - {"mesh"}][:3] == []
    assert [plan[:20_000] for plan in plans if most_rows(plan) > _SWEPT][:3] == []


@pytest.mark.parametrize("age", ["young", "old", "grown"])
async def test_no_statement_of_the_hot_path_reads_a_whole_table(age: str) -> None:
    """The server explains every statement it ran, those inside of functions too.

    On a young database, on an old one, and on one that grew since the plans were made.
    """
    async with database() as url:
        store = PostgresStore(url)
        await store.open()
        mesh = new_mesh()
        owner = member(mesh.id, "alice", role="owner")
        await store.meshes.create(mesh, owner)
        await store.close()
        if age == "old":
            await sql(url, _HISTORY, "ANALYZE")
        name = await sql(url, "SELECT current_database()")
        await sql(url, *(statement.format(name=name) for statement in _EXPLAINED))
        log = shared_server().log
        await store.open()
        if age == "grown":
            await ordinary_traffic(World(store, mesh, owner), "first")
            await sql(url, _HISTORY, "SELECT 1")
        before = log.stat().st_size
        await ordinary_traffic(World(store, mesh, owner), "bob")
        await store.close()
        explained = log.read_bytes()[before:].decode()
    plans = [plan for plan in explained.split("Query Text: ") if "mesh." in plan]
    assert len(plans) > 100
    assert [plan[:20_000] for plan in plans if whole_tables(plan) & GROWING][:3] == []
    assert [plan[:20_000] for plan in plans if most_rows(plan) > _BATCH][:3] == []


def most_rows(plan: str) -> int:
    """Return the number of rows in the busiest step of a plan."""
    return max((int(count) for pair in _ROWS.findall(plan) for count in pair if count), default=0)


def whole_tables(plan: str) -> set[str]:
    """The tables that a plan reads as a whole."""
    return {name for pair in _WHOLE.findall(plan) for name in pair if name}


def test_the_reader_of_plans_sees_both_ways_of_reading_everything() -> None:
    """A scan of an index without a condition is a scan of the table."""
    plan = """
      ->  Seq Scan on member m  (cost=0.00 rows=1)
            Filter: (status = 'active'::text)
      ->  Index Only Scan using presence_pkey on presence p  (cost=0.15 rows=1)
      ->  Index Scan using topic_pkey on topic t  (cost=0.15 rows=1)
            Index Cond: (mesh_id = 1)
    """
    assert whole_tables(plan) == {"member", "presence"}
