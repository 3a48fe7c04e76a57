"""Nothing waits for ever: locks, statements, connections (docs/operating.md, Postgres)."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from claudemesh.broker.store.deadlines import DatabaseDeadlines
from claudemesh.broker.store.postgres import PostgresStore, pools, sessions
from claudemesh.broker.store.types import Accepted
from claudemesh.runtime.errors import StorageFull, StorageUnavailable
from tests.integration.postgres.shared import shared
from tests.support.postgres import shared_server
from tests.support.stores import NOW, World
from tests.support.streams import listening


async def test_a_lock_that_is_never_given_up_ends_in_unavailable() -> None:
    """Tried a bounded number of times; afterwards the store serves on."""
    async with shared(DatabaseDeadlines(lock_s=0.02)) as s:
        send = s.one.dm(s.one.owner, s.bob, client_message_id="x")
        async with s.connection.transaction():
            await s.call_accept([s.one.dm(s.one.owner, s.bob, client_message_id="x")])
            with pytest.raises(StorageUnavailable, match="55P03"):
                await s.one.store.messages.accept([send], NOW)
            [other] = await s.one.store.messages.accept([s.one.dm(s.one.owner, s.bob)], NOW)
            assert isinstance(other, Accepted)


async def test_a_batch_that_takes_too_long_is_carried_in_parts() -> None:
    """As with too many recipients at once: halves until they fit, every message in its order."""
    async with shared(DatabaseDeadlines(statement_s=2.0)) as s:
        await _slow_down(s.connection, "0.25")
        sends = [s.one.dm(s.one.owner, s.bob) for _ in range(12)]
        outcomes = await s.one.store.messages.accept(sends, NOW)
        numbers = [outcome.history_id for outcome in outcomes if isinstance(outcome, Accepted)]
        assert len(numbers) == 12
        assert numbers == sorted(numbers)
        assert await s.one.owed(s.bob) == [send.broker_message_id for send in sends]


async def test_a_message_that_takes_too_long_is_transient_and_leaves_nothing() -> None:
    """The server ends it; no part of it stays."""
    async with shared(DatabaseDeadlines(statement_s=2.0)) as s:
        await _slow_down(s.connection, "600")
        with pytest.raises(StorageUnavailable, match="57014"):
            await s.one.store.messages.accept([s.one.dm(s.one.owner, s.bob)], NOW)
        for table in ("client_message_dedupe", "message_queue", "message_history", "delivery_queue"):
            assert await s.count(table) == 0


async def test_a_full_disk_is_said_as_such() -> None:
    """The broker tells its daemons, and goes on once there is space."""
    async with shared() as s:
        await s.connection.execute(
            """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$"""
        )
        await s.connection.execute(
            "CREATE TRIGGER full_disk BEFORE INSERT ON mesh.message_queue EXECUTE FUNCTION full_disk()"
        )
        send = s.one.dm(s.one.owner, s.bob)
        with pytest.raises(StorageFull):
            await s.one.store.messages.accept([send], NOW)
        await s.connection.execute("DROP TRIGGER full_disk ON mesh.message_queue")
        assert isinstance((await s.one.store.messages.accept([send], NOW))[0], Accepted)


async def test_a_pool_without_a_free_connection_is_unavailable() -> None:
    """The wait is bounded; readers and senders have pools of their own."""
    async with shared(DatabaseDeadlines(acquire_s=4, lock_s=60, statement_s=60, use_s=60)) as s:
        sends = [s.one.dm(s.one.owner, s.bob) for _ in range(pools._POOL_SIZE)]
        async with s.gate("delivery_queue"):
            calls = [asyncio.ensure_future(s.one.store.messages.accept([send], NOW)) for send in sends]
            await s.waiting(len(sends))
            with pytest.raises(StorageUnavailable):
                await s.one.store.messages.accept([s.one.dm(s.one.owner, s.bob)], NOW)
            await s.one.store.ping()
        for call in calls:
            assert isinstance((await call)[0], Accepted)


async def test_a_transaction_left_open_is_ended_by_the_server() -> None:
    """Its locks go with it, its caller gets the error, and every connection continues."""
    async with shared(DatabaseDeadlines(idle_s=1.0)) as s:
        ended = asyncio.Event()

        async def leak(connection: Any) -> None:
            connection.add_termination_listener(lambda link: ended.set())
            await connection.execute("LOCK TABLE mesh.audit_event")
            await ended.wait()
            await connection.execute("SELECT 1")

        for _ in range(2 * pools._POOL_SIZE):
            ended.clear()
            with pytest.raises(StorageUnavailable):
                await s.one.store.pools.transaction(leak)  # type: ignore[attr-defined]
        await s.one.store.audit.newest(s.one.mesh.id, 1)
        await asyncio.gather(*(s.one.store.ping() for _ in range(pools._POOL_SIZE)))


async def test_a_dead_peer_is_found_by_the_kernel() -> None:
    """Every connection over TCP has the options; Linux also bounds what is not confirmed."""
    async with listening(_to_server) as port:
        url = shared_server().url().replace(f"host={shared_server().folder}", f"host=127.0.0.1&port={port}")
        connection = await sessions.connect(url, {})
        link = connection._transport.get_extra_info("socket")
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == sessions._UNCONFIRMED_MS
        await connection.close()


async def _to_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    up_reader, up_writer = await asyncio.open_unix_connection(shared_server().folder / ".s.PGSQL.5432")

    async def pump(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                to.write(data)
        finally:
            to.close()

    await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))


async def test_more_callers_than_connections_take_turns() -> None:
    """A finished caller passes its connection to a waiting one."""
    async with shared() as s:
        await asyncio.gather(*(s.one.store.ping() for _ in range(5 * pools._POOL_SIZE)))
        sends = [s.one.dm(s.one.owner, s.bob) for _ in range(5 * pools._POOL_SIZE)]
        found = await asyncio.gather(*(s.one.store.messages.accept([send], NOW) for send in sends))
        assert all(isinstance(outcome, Accepted) for [outcome] in found)
        sessions = """SELECT count(*) FROM pg_stat_activity
                      WHERE application_name = 'claudemesh' AND datname = current_database()"""
        assert await s.connection.fetchval(sessions) <= 2 * pools._POOL_SIZE


async def test_a_store_closes_while_the_server_does_not_answer() -> None:
    """Running statements are aborted."""
    async with shared() as s:
        store = PostgresStore(s.url, deadlines=DatabaseDeadlines(close_s=0.1))
        await store.open()
        w = World(store, s.one.mesh, s.one.owner)
        async with s.gate("delivery_queue"):
            call = asyncio.ensure_future(store.messages.accept([w.dm(w.owner, s.bob)], NOW))
            await s.waiting()
            await store.close()
            with pytest.raises(StorageUnavailable):
                await call


async def _slow_down(connection: Any, seconds: str) -> None:
    """Let every delivery take its time."""
    await connection.execute(
        f"""CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$"""
    )
    await connection.execute(
        "CREATE TRIGGER slow BEFORE INSERT ON mesh.delivery_queue FOR EACH ROW EXECUTE FUNCTION slow()"
    )
