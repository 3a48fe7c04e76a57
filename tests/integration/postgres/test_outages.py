"""The server goes away, or the way to it: nothing acknowledged is lost, nothing is accepted twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from claudemesh.broker.store.deadlines import DatabaseDeadlines
from claudemesh.broker.store.postgres import PostgresStore, pools
from claudemesh.broker.store.types import Accepted, Existing, NewSend
from claudemesh.runtime.errors import StorageUnavailable
from tests.integration.postgres.shared import watching
from tests.support.postgres import Server, empty_database, shared_server
from tests.support.stores import NOW, World, member, new_mesh
from tests.support.streams import listening
from tests.support.waiting import WAIT_S


async def accept_until_it_fails(w: World, accepted: list[NewSend], asked: list[NewSend]) -> None:
    """Send batch after batch; note what was asked and what was acknowledged."""
    with suppress(StorageUnavailable):
        while True:
            sends = [w.dm(w.owner, w.owner) for _ in range(8)]
            asked += sends
            outcomes = await w.store.messages.accept(sends, NOW)
            accepted += [send for send, one in zip(sends, outcomes, strict=True) if isinstance(one, Accepted)]


async def test_a_server_that_is_killed_loses_nothing_that_was_acknowledged() -> None:
    """Under load, three times: what was acknowledged is there, the rest is there once or not at all."""
    server = Server()
    server.start()
    try:
        async with empty_database(server) as url:
            store = PostgresStore(url)
            await store.open()
            mesh = new_mesh()
            owner = member(mesh.id, "alice", role="owner")
            await store.meshes.create(mesh, owner)
            w = World(store, mesh, owner)
            accepted: list[NewSend] = []
            asked: list[NewSend] = []
            for round_ in range(1, 4):
                load = [asyncio.ensure_future(accept_until_it_fails(w, accepted, asked)) for _ in range(3)]
                while len(accepted) < 200 * round_:
                    await store.ping()
                server.stop(signal.SIGQUIT)
                await asyncio.gather(*load)
                with pytest.raises(StorageUnavailable):
                    await store.ping()
                server.start()
                # The same store goes on, without being told.
                await store.ping()
            found = await store.messages.lookup([send.key for send in asked])
            assert {send.key for send in accepted} <= found.keys()
            again = await store.messages.accept(asked, NOW)
            assert [send.key in found for send in asked] == [isinstance(one, Existing) for one in again]
            owed = await w.owed(owner, 100_000)
            assert sorted(owed) == sorted(send.broker_message_id for send in asked)
            await store.close()
    finally:
        server.remove()


async def test_a_wait_for_a_standby_that_is_cancelled_is_no_acknowledgement() -> None:
    """The server then commits here with a warning, and the standby may not have it: ask again."""
    server = Server()
    server.start()
    try:
        async with empty_database(server) as url, watching(url) as operator:
            store = PostgresStore(url)
            await store.open()
            mesh = new_mesh()
            owner = member(mesh.id, "alice", role="owner")
            await store.meshes.create(mesh, owner)
            w = World(store, mesh, owner)
            await operator.execute("ALTER SYSTEM SET synchronous_standby_names = 'nowhere'")
            await operator.execute("SELECT pg_reload_conf()")
            cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            cancelled = False
            # The server takes the setting up when it gets to it: until then commits do not wait.
            while not cancelled:
                send = w.dm(owner, owner)
                call = asyncio.ensure_future(store.messages.accept([send], NOW))
                while not call.done() and not cancelled:
                    cancelled = bool(await operator.fetch(cancel))
            with pytest.raises(StorageUnavailable, match="warning"):
                await call
            await operator.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await operator.execute("SELECT pg_reload_conf()")
            assert isinstance((await store.messages.accept([send], NOW))[0], Existing)
            await store.close()
    finally:
        server.remove()


class Link:
    """A way to the server that can be made to swallow its answers, or everything, and to break."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self.swallowing = False
        self.silent = False
        self._writers: list[asyncio.StreamWriter] = []

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        up_reader, up_writer = await asyncio.open_unix_connection(self._server)
        self._writers += [writer, up_writer]
        await asyncio.gather(self._pump(reader, up_writer, False), self._pump(up_reader, writer, True))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool) -> None:
        try:
            with suppress(OSError):
                while data := await reader.read(65_536):
                    if not self.silent and not (answers and self.swallowing):
                        writer.write(data)
        finally:
            writer.close()

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def link_to(folder: Path) -> AsyncGenerator[Link]:
    """A link whose socket lies in another folder, under the same name."""
    link = Link(shared_server().folder / ".s.PGSQL.5432")
    async with listening(link.carry, folder / ".s.PGSQL.5432"):
        try:
            yield link
        finally:
            link.cut()


async def test_an_answer_that_is_lost_behind_the_commit_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    """It was committed without an answer: no acknowledgement, and the retry is a duplicate."""
    async with empty_database() as url, link_to(tmp_path) as link:
        store = PostgresStore(url.replace(str(shared_server().folder), str(tmp_path)))
        await store.open()
        watcher = PostgresStore(url)
        await watcher.open()
        mesh = new_mesh()
        owner = member(mesh.id, "alice", role="owner")
        await store.meshes.create(mesh, owner)
        w = World(store, mesh, owner)
        await store.messages.accept([w.dm(owner, owner)], NOW)
        send = w.dm(owner, owner)
        link.swallowing = True
        call = asyncio.ensure_future(store.messages.accept([send], NOW))
        while send.key not in await watcher.messages.lookup([send.key]):
            pass
        link.cut()
        with pytest.raises(StorageUnavailable):
            await call
        link.swallowing = False
        [outcome] = await store.messages.accept([send], NOW)
        assert isinstance(outcome, Existing)
        assert outcome.row.broker_message_id == send.broker_message_id
        assert (await w.owed(owner)).count(send.broker_message_id) == 1
        await store.close()
        await watcher.close()


async def test_a_server_that_says_nothing_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    """A host that is gone without a word, as behind a broken network: bounded, unknown, and then healed."""
    deadlines = DatabaseDeadlines(use_s=3.0, acquire_s=3.0)
    async with empty_database() as url, link_to(tmp_path) as link:
        store = PostgresStore(url.replace(str(shared_server().folder), str(tmp_path)), deadlines=deadlines)
        await store.open()
        mesh = new_mesh()
        owner = member(mesh.id, "alice", role="owner")
        await store.meshes.create(mesh, owner)
        w = World(store, mesh, owner)
        await store.messages.accept([w.dm(owner, owner)], NOW)
        sends = [w.dm(owner, owner) for _ in range(3)]
        link.silent = True
        async with asyncio.timeout(WAIT_S):
            for send in sends:
                with pytest.raises(StorageUnavailable):
                    await store.messages.accept([send], NOW)
            with pytest.raises(StorageUnavailable):
                await store.ping()
        link.silent = False
        async with asyncio.timeout(WAIT_S):
            outcomes = await store.messages.accept(sends, NOW)
        assert [type(outcome) for outcome in outcomes] == [Accepted] * 3
        await store.close()


async def test_a_connection_that_is_lost_during_an_accept_is_reported_as_what_it_is() -> None:
    """Not as the log listener that could not be taken back from it."""
    async with empty_database(shared_server()) as url, asyncpg.create_pool(url, min_size=1) as pool:
        with pytest.raises(asyncpg.PostgresError):
            async with pool.acquire() as connection:
                with pools.committing_in_full(connection):
                    await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        async with pool.acquire() as connection:
            with pytest.raises(asyncio.CancelledError), pools.committing_in_full(connection):
                connection.terminate()
                await asyncio.sleep(0)
                raise asyncio.CancelledError
