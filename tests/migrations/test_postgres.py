"""Migrations on Postgres: what they make, twice, two at once, ahead of the program, and on foreign ground."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from claudemesh.broker.store.postgres import PostgresStore, preflight
from claudemesh.broker.store.postgres import schema as schema_module
from claudemesh.broker.store.postgres.accept import arguments, outcomes_of
from claudemesh.broker.store.postgres.queries import QUERIES
from claudemesh.broker.store.postgres.schema import migrate
from claudemesh.broker.store.types import Accepted, AcceptOutcome, Existing, NewSend, Refused
from claudemesh.runtime.errors import SchemaTooNew
from claudemesh.runtime.exits import CONFIGURATION, TEMPORARY, ExitWith
from claudemesh.runtime.migrations import Migration, load_migrations
from tests.support.postgres import empty_database, sql
from tests.support.stores import NOW, world
from tests.support.waiting import WAIT_S

PACKAGE = "claudemesh.broker.store.postgres.migrations"
# SHA-256 of each function as it was released.
FUNCTIONS = {
    "accept_v2.sql": "d75b31401f14d6f2218a16c43fbbb1ad0f485fddcf241c2eb8dc1cb8a8fa6c5a",
    "accept_v3.sql": "35e31ec3d656cf0fd11d7871f5086246a46775811c68c563a6896e0fccfe212f",
    "accept_v4.sql": "cfd99582bc1e3a102889913edaff7e0f8499fb0d72373851a4fda5eae909a926",
}
EXPECTED = Path(__file__).with_name("postgres_schema.txt")

_SCHEMA = r"""
SELECT string_agg(line, E'\n' ORDER BY line COLLATE "C") FROM (
  SELECT format('%s.%s %s%s%s%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                CASE WHEN o.collname <> 'default' THEN ' collate ' || o.collname END,
                CASE WHEN a.attnotnull THEN ' not null' END,
                CASE a.attidentity WHEN 'a' THEN ' identity always' WHEN 'd' THEN ' identity by default'
                     ELSE ' default ' || pg_get_expr(d.adbin, d.adrelid) END) AS line
  FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
  LEFT JOIN pg_collation AS o ON o.oid = a.attcollation
  WHERE c.relnamespace = 'mesh'::regnamespace AND c.relkind = 'r'
  UNION ALL
  SELECT format('%s: %s', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint
  WHERE connamespace = 'mesh'::regnamespace AND contype <> 'n'
  UNION ALL
  SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'mesh'
  UNION ALL
  SELECT format('function %s returns %s', oid::regprocedure, pg_get_function_result(oid)) FROM pg_proc
  WHERE pronamespace = 'mesh'::regnamespace
) AS lines
"""
_OPEN = """
import asyncio, sys
from claudemesh.broker.store.postgres.preflight import prepare_database
asyncio.run(prepare_database(sys.argv[1], allow_unsafe=False))
"""


async def schema(url: str) -> str:
    """Everything that the schema holds, a line each."""
    found: str = await sql(url, _SCHEMA)
    return found


def open_at_once(url: str, count: int) -> None:
    """Let several processes open the database at the same moment."""
    arguments = [sys.executable, "-c", _OPEN, url]
    processes = [subprocess.Popen(arguments, stderr=subprocess.PIPE) for _ in range(count)]
    for process in processes:
        _, errors = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, errors.decode()


async def opened(url: str) -> None:
    """Open the store and close it again."""
    store = PostgresStore(url)
    await store.open()
    await store.close()


async def test_the_migrations_make_the_expected_schema() -> None:
    """Changed on purpose, the file beside this test changes with it."""
    async with empty_database() as url:
        await opened(url)
        assert (await schema(url)).splitlines() == EXPECTED.read_text().splitlines()


async def test_migrating_again_changes_nothing() -> None:
    """The list of migrations decides."""
    async with empty_database() as url:
        await opened(url)
        first, epoch = await schema(url), await sql(url, "SELECT epoch FROM mesh.epoch")
        await opened(url)
        assert (await schema(url), await sql(url, "SELECT epoch FROM mesh.epoch")) == (first, epoch)
        versions = await sql(url, "SELECT array_agg(version ORDER BY version) FROM mesh.schema_migration")
        assert versions == [step.version for step in load_migrations(PACKAGE)]


async def test_several_processes_may_migrate_at_once() -> None:
    """One does it, the others find it done."""
    async with empty_database() as url:
        open_at_once(url, 4)
        assert (await schema(url)).splitlines() == EXPECTED.read_text().splitlines()


async def test_a_schema_ahead_of_the_program_is_refused() -> None:
    """An older program does not touch a newer database."""
    async with empty_database() as url:
        migrations = list(load_migrations(PACKAGE))
        newer = [*migrations, Migration(len(migrations) + 1, "CREATE TABLE mesh.later (a integer)")]
        connection = await asyncpg.connect(url)
        assert await migrate(connection, newer) == len(newer)
        await connection.close()
        before = await schema(url)
        with pytest.raises(SchemaTooNew, match="upgrade claudemesh"):
            await opened(url)
        assert await schema(url) == before


async def test_a_migration_that_fails_leaves_the_version_before_it() -> None:
    """One transaction each."""
    async with empty_database() as url:
        migrations = list(load_migrations(PACKAGE))
        bad = Migration(len(migrations) + 1, "CREATE TABLE mesh.half (a integer); SELECT 1 / 0")
        connection = await asyncpg.connect(url)
        with pytest.raises(asyncpg.DivisionByZeroError):
            await migrate(connection, [*migrations, bad])
        await connection.close()
        await opened(url)
        assert (await schema(url)).splitlines() == EXPECTED.read_text().splitlines()


@pytest.mark.parametrize(
    "foreign",
    [
        "CREATE TABLE mesh.something (a integer)",
        "CREATE TABLE mesh.schema_migration (name text)",
        """CREATE TABLE mesh.schema_migration (version integer PRIMARY KEY, applied_at timestamptz);
           INSERT INTO mesh.schema_migration VALUES (7, now())""",
    ],
)
async def test_somebody_else_s_schema_is_refused(foreign: str) -> None:
    """A schema of this name that is not ours stays as it is."""
    async with empty_database() as url:
        await sql(url, f"CREATE SCHEMA mesh; {foreign}", "SELECT 1")
        before = await schema(url)
        with pytest.raises(ExitWith) as caught:
            await opened(url)
        assert (caught.value.code, caught.value.error) == (CONFIGURATION, "schema_foreign")
        assert await schema(url) == before


async def test_an_empty_schema_that_somebody_made_for_us_is_used() -> None:
    """A role that may not create schemas gets one of its own."""
    async with empty_database() as url:
        await sql(url, "CREATE SCHEMA mesh", "SELECT 1")
        await opened(url)
        assert (await schema(url)).splitlines() == EXPECTED.read_text().splitlines()


async def test_a_migration_that_does_not_end_is_not_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A supervisor starts the broker again; nothing was changed."""
    monkeypatch.setitem(preflight._PATIENT, "lock_timeout", "50")
    async with empty_database() as url:
        connection = await asyncpg.connect(url)
        async with connection.transaction():
            await connection.execute(QUERIES["migration_lock"], schema_module._LOCK)
            with pytest.raises(ExitWith) as caught:
                await opened(url)
        await connection.close()
        assert (caught.value.code, caught.value.error) == (TEMPORARY, "database_busy")
        await opened(url)


async def test_a_database_in_which_two_members_share_an_x25519_key_can_be_upgraded() -> None:
    """The first keeps the key; the other is marked, and no other member can take it."""
    migrations = load_migrations(PACKAGE)
    before = next(number for number, step in enumerate(migrations) if "repeats_sealing_key" in step.sql)
    insert = (
        "INSERT INTO mesh.member_key"
        " (key_id, mesh_id, member_id, ed25519_pubkey, x25519_pubkey, state, created_at)"
        " SELECT 'k', mesh_id, id, ed25519_pubkey, x25519_pubkey, 'current', created_at FROM mesh.member"
    )
    async with empty_database() as url:
        connection = await asyncpg.connect(url)
        await migrate(connection, migrations[:before])
        await connection.execute(
            "INSERT INTO mesh.mesh (id, slug, clone_concurrency_policy, dedupe_retention_mode, created_at)"
            " VALUES (gen_random_uuid(), 'demo', 'prefer_newest', 'permanent', now())"
        )
        await connection.execute(
            "INSERT INTO mesh.member (id, mesh_id, name, role, status, ed25519_pubkey, x25519_pubkey,"
            " x25519_signature, key_id, ephemeral, created_at)"
            " SELECT gen_random_uuid(), m.id, n.name, 'member', 'active', n.name::bytea, n.box::bytea,"
            " '', 'k', false, n.at FROM mesh.mesh AS m, (VALUES ('b', 'shared', to_timestamp(2)),"
            " ('a', 'shared', to_timestamp(1)), ('c', 'own', to_timestamp(3)),"
            " ('d', 'shared', to_timestamp(2))) AS n (name, box, at)"
        )
        await connection.execute(insert)
        await migrate(connection, migrations)
        marked = await connection.fetch(
            "SELECT m.name FROM mesh.member_key AS k JOIN mesh.member AS m ON m.id = k.member_id"
            " WHERE k.repeats_sealing_key ORDER BY m.name"
        )
        assert [row["name"] for row in marked] == ["b", "d"]
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(
                insert.replace(
                    "ed25519_pubkey, x25519_pubkey, 'current'", "'\\x00', x25519_pubkey, 'current'"
                )
            )
        await connection.close()


async def test_members_of_the_first_schemas_get_versions() -> None:
    """Each mesh counts for itself, in the order of joining; the next change goes on from there."""
    migrations = list(load_migrations(PACKAGE))
    async with empty_database() as url:
        connection = await asyncpg.connect(url)
        await migrate(connection, migrations[:9])
        await connection.execute(
            """
            INSERT INTO mesh.mesh (id, slug, clone_concurrency_policy, dedupe_retention_mode, created_at)
            SELECT md5(slug)::uuid, slug, 'prefer_newest', 'permanent', now()
            FROM (VALUES ('one'), ('two')) AS w (slug);
            INSERT INTO mesh.member (id, mesh_id, name, role, status, ed25519_pubkey, x25519_pubkey,
                                     x25519_signature, key_id, ephemeral, created_at)
            SELECT md5(name)::uuid, md5(slug)::uuid, name, 'member', 'active', name::bytea, name::bytea,
                   '\\x00', 'k', false, to_timestamp(place)
            FROM (VALUES ('b', 'one', 1), ('a', 'one', 2), ('c', 'one', 3), ('d', 'two', 1))
                   AS w (name, slug, place)
            """
        )
        assert await migrate(connection, migrations) == len(migrations)
        await connection.execute("UPDATE mesh.member SET status = 'left' WHERE name = 'b'")
        members = await connection.fetch(
            "SELECT name, changed_version, joined_version FROM mesh.member ORDER BY name"
        )
        versions = await connection.fetch(
            "SELECT m.slug, d.version FROM mesh.directory AS d JOIN mesh.mesh AS m ON m.id = d.mesh_id"
            " JOIN mesh.directory_token AS t USING (mesh_id, version, token) ORDER BY 1"
        )
        await connection.close()
    assert [tuple(row) for row in members] == [("a", 2, 2), ("b", 4, 1), ("c", 3, 3), ("d", 1, 1)]
    assert [tuple(row) for row in versions] == [("one", 4), ("two", 1)]


@pytest.mark.parametrize("function", ["accept", "accept_v2", "accept_v3"])
async def test_a_broker_of_an_earlier_release_goes_on_accepting(function: str) -> None:
    """It calls the function that it knows; each of the two finds what the other has accepted.

    It writes mentions too, and the table stays empty.
    """
    assert "mesh.accept_v4(" in QUERIES["accept"]
    # Arguments up to the envelopes are the same; mentions follow, and in the last of them epochs.
    with_epochs = function == "accept_v3"
    query = QUERIES["accept"].replace("mesh.accept_v4(", f"mesh.{function}(")
    query = query.replace("$13", "$15") if with_epochs else query
    query = query.replace("$11, $12)", "$11, $12, $13, $14)") if with_epochs else query
    async with world("postgres") as w:
        store: Any = w.store
        earlier, later, unknown = w.post(w.owner, "all"), w.post(w.owner, "all"), w.post(w.owner, "nowhere")

        async def accept_earlier(*sends: NewSend) -> list[AcceptOutcome]:
            given = arguments(sends, NOW)
            mentions = ([1], [bytes.fromhex(w.owner.ed25519_pubkey)])
            epochs = given[10:] if with_epochs else ()
            rows = await store.pools.fetch(query, *given[:10], *mentions, *epochs, None)
            return list(outcomes_of(rows, sends, NOW))

        [accepted, refused] = await accept_earlier(earlier, unknown)
        assert isinstance(accepted, Accepted)
        assert refused == Refused("destination_not_found")
        [existing, new] = await w.store.messages.accept([earlier, later], NOW)
        assert isinstance(existing, Existing) and existing.row.history_id == accepted.history_id
        assert isinstance(new, Accepted)
        assert await accept_earlier(later) == [
            Existing((await w.store.messages.lookup([later.key]))[later.key])
        ]
        assert await store.pools.fetch("SELECT 1 FROM mesh.mention_index") == []


async def test_a_released_function_keeps_its_text() -> None:
    """A migration includes it, and a change is a new version in a file of its own."""
    folder = files("claudemesh.broker.store.postgres").joinpath("functions")
    digests = {
        entry.name: hashlib.sha256(entry.read_bytes()).hexdigest()
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    }
    assert digests == FUNCTIONS
    created = "\n".join(step.sql for step in load_migrations(PACKAGE))
    assert [name for name in digests if f"FUNCTION mesh.{name.removesuffix('.sql')}(" not in created] == []
