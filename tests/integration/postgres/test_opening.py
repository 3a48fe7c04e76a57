"""Refusal of an unusable database: sentence, stable code, no password (docs/operating.md, Postgres)."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from claudemesh.broker.app import Broker
from claudemesh.broker.settings import BrokerSettings
from claudemesh.broker.store.postgres import PostgresStore
from claudemesh.broker.store.types import Accepted
from claudemesh.runtime.errors import SchemaTooNew
from claudemesh.runtime.exits import CONFIGURATION, PERMISSION, UNAVAILABLE, ExitWith
from tests.support.postgres import PASSWORD_USER, Server, empty_database, shared_server, sql
from tests.support.stores import NOW, World, member, new_mesh

SECRET = "hunter2hunter2"
_GRANT = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA mesh TO {}"


async def refused(url: str) -> ExitWith:
    """Return the exit with which opening a store on this database ends."""
    with pytest.raises(ExitWith) as caught:
        await PostgresStore(url).open()
    assert SECRET not in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


async def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    """A socket folder without a socket, a port without a listener, a host without an address."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for place in (f"@/x?host={tmp_path}", f"@127.0.0.1:{port}/x", "@host.invalid/x"):
        ending = await refused(f"postgresql://me:{SECRET}{place}")
        assert (ending.code, ending.error) == (UNAVAILABLE, "database_unreachable"), place


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@host:port/x",
        f"postgresql://me:{SECRET}/@host/x",
        f"postgresql://me:{SECRET}@[::1/x",
        f"postgresql://me:{SECRET}@h/x?sslmode=whatever",
    ],
)
async def test_a_url_that_does_not_parse_is_a_matter_of_configuration(url: str) -> None:
    """For any fault, and no part of the URL is repeated."""
    ending = await refused(url)
    assert (ending.code, ending.error) == (CONFIGURATION, "invalid_configuration")
    assert "--database-url" in ending.message


async def test_a_wrong_password_is_a_matter_of_permission() -> None:
    """And the password is not repeated."""
    async with empty_database() as url:
        await sql(url, _role(PASSWORD_USER, f"PASSWORD '{SECRET}'"), "SELECT 1")
        name = await sql(url, "SELECT current_database()")
        where = f"/{name}?host={shared_server().folder}"
        ending = await refused(f"postgresql://{PASSWORD_USER}:{SECRET}x@{where}")
        assert (ending.code, ending.error) == (PERMISSION, "database_access_denied")
        ending = await refused(f"postgresql://{PASSWORD_USER}@{where}")
        assert (ending.code, ending.error) == (PERMISSION, "database_access_denied")


async def test_a_user_or_a_database_that_does_not_exist_is_said() -> None:
    """Two different things to mend."""
    there = shared_server()
    ending = await refused(there.url(user="nobody-of-that-name"))
    assert (ending.code, ending.error) == (PERMISSION, "database_access_denied")
    ending = await refused(there.url("nothing-of-that-name"))
    assert (ending.code, ending.error) == (CONFIGURATION, "database_not_found")


async def test_missing_rights_are_said() -> None:
    """To make the schema; to write to its tables."""
    async with empty_database() as url:
        await sql(url, _role("guest"), "SELECT 1")
        as_guest = url.replace("postgres@", "guest@")
        ending = await refused(as_guest)
        assert (ending.code, ending.error) == (PERMISSION, "database_rights_missing")
        store = PostgresStore(url)
        await store.open()
        await store.close()
        ending = await refused(as_guest)
        assert (ending.code, ending.error) == (PERMISSION, "database_rights_missing")
        await sql(url, "GRANT USAGE ON SCHEMA mesh TO guest", "SELECT 1")
        await sql(url, "GRANT SELECT ON ALL TABLES IN SCHEMA mesh TO guest", "SELECT 1")
        ending = await refused(as_guest)
        assert (ending.code, ending.error) == (PERMISSION, "database_rights_missing")
        assert "delivery_queue" in ending.message
        await sql(url, _GRANT.format("guest"), "SELECT 1")
        ending = await refused(as_guest)
        assert (ending.code, ending.error) == (PERMISSION, "database_rights_missing")
        assert "may not use message_history_history_id_seq" in ending.message
        await sql(url, "GRANT USAGE ON ALL SEQUENCES IN SCHEMA mesh TO guest", "SELECT 1")
        ending = await refused(as_guest)
        assert "may not use message_history_history_id_seq" in ending.message


async def test_a_role_that_only_uses_the_tables_is_enough() -> None:
    """Migrating and serving may be done by two roles."""
    async with empty_database() as url:
        await sql(url, _role("server"), "SELECT 1")
        store = PostgresStore(url)
        await store.open()
        await store.close()
        await sql(
            url,
            """GRANT USAGE ON SCHEMA mesh TO server;
               GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA mesh TO server""",
            _GRANT.format("server"),
            "SELECT 1",
        )
        store = PostgresStore(url.replace("postgres@", "server@"))
        await store.open()
        mesh = new_mesh()
        owner = member(mesh.id, "alice", role="owner")
        await store.meshes.create(mesh, owner)
        [outcome] = await store.messages.accept([World(store, mesh, owner).dm(owner, owner)], NOW)
        await store.close()
        assert isinstance(outcome, Accepted)


async def test_a_database_that_cannot_hold_every_text_is_refused() -> None:
    """Names and summaries are UTF-8."""
    there = shared_server()
    create = "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    await sql(there.url(), "DROP DATABASE IF EXISTS latin")
    await sql(there.url(), create)
    ending = await refused(there.url("latin"))
    assert (ending.code, ending.error) == (CONFIGURATION, "database_encoding")


async def test_unlogged_tables_are_refused() -> None:
    """A crash would empty them."""
    async with empty_database() as url:
        store = PostgresStore(url)
        await store.open()
        await store.close()
        await sql(url, "ALTER TABLE mesh.message_queue SET UNLOGGED", "SELECT 1")
        ending = await refused(url)
        assert (ending.code, ending.error) == (CONFIGURATION, "database_unsafe")
        assert "message_queue" in ending.message


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    """A server for this module, restarted with the settings of each test."""
    made = Server()
    yield made
    made.remove()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
async def test_a_server_that_may_forget_is_refused(server: Server, setting: str) -> None:
    """Unless the operator says that it is accepted."""
    server.start(**{setting: "off"})
    async with empty_database(server) as url:
        ending = await refused(url)
        assert (ending.code, ending.error) == (CONFIGURATION, "database_unsafe")
        assert setting in ending.message
        store = PostgresStore(url, allow_unsafe=True)
        await store.open()
        await store.ping()
        await store.close()
    server.stop()


@pytest.mark.parametrize(
    ("theirs", "ours"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")]
)
async def test_commits_are_durable_whatever_the_server_s_default(
    server: Server, theirs: str, ours: str
) -> None:
    """Off is switched on for our sessions; what is at least as strong stays."""
    server.start(synchronous_commit=theirs)
    async with empty_database(server) as url:
        store = PostgresStore(url)
        await store.open()
        for accepting in (True, False):
            [row] = await store.pools.fetch("SHOW synchronous_commit", accepting=accepting)
            assert row[0] == ours
        await store.close()
    server.stop()


async def test_a_broker_says_it_as_its_own_ending(tmp_path: Path) -> None:
    """The data dir is free again at once."""
    settings = BrokerSettings(
        listen="127.0.0.1:0", data_dir=tmp_path / "broker", database_url=f"postgresql://me@/x?host={tmp_path}"
    )
    for _ in range(2):
        with pytest.raises(ExitWith) as caught:
            await Broker(settings).start()
        assert (caught.value.code, caught.value.error) == (UNAVAILABLE, "database_unreachable")
    async with empty_database() as url:
        store = PostgresStore(url)
        await store.open()
        await store.close()
        await sql(
            url,
            "INSERT INTO mesh.schema_migration SELECT max(version) + 1 FROM mesh.schema_migration",
            "SELECT 1",
        )
        with pytest.raises(SchemaTooNew):
            await store.open()
        newer = BrokerSettings(listen="127.0.0.1:0", data_dir=tmp_path / "broker", database_url=url)
        with pytest.raises(ExitWith) as caught:
            await Broker(newer).start()
        assert (caught.value.code, caught.value.error) == (CONFIGURATION, "schema_too_new")


def _role(name: str, options: str = "") -> str:
    """Make a role that can log in, unless an earlier test has."""
    return f"""DO $$ BEGIN CREATE ROLE {name} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
               ALTER ROLE {name} {options or "LOGIN"}"""
