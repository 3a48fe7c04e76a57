"""A database that fails for a while: the broker says so once and goes on by itself, whole."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from claudemesh.broker.app import Broker
from claudemesh.broker.settings import Limits
from claudemesh.broker.store.deadlines import DatabaseDeadlines
from claudemesh.runtime.exits import UNAVAILABLE
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.cli import Ran, run
from tests.support.postgres import Server, shared_server, sql
from tests.support.stores import database
from tests.support.streams import listening
from tests.support.values import replace
from tests.support.waiting import WAIT_S
from tests.support.wspeer import Peer, http_request

_QUICK = Limits(sweep_s=0.2, lease_s=1.0, retry_s=0.2)


async def eventually(condition: Any) -> None:
    """Wait until a coroutine function says so."""
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110 - the broker is asked from outside
            await asyncio.sleep(0.05)


async def readiness(broker: Broker) -> tuple[int, dict[str, Any]]:
    """Return the answer of /readyz, which comes soon in any state of the database."""
    async with asyncio.timeout(WAIT_S):
        return await http_request(broker.url, "GET", "/readyz")


def broker_status(folder: Path) -> Ran:
    """Return what an operator sees on the broker's host."""
    return run(folder, "broker", "status", "--data-dir", str(folder / "1"))


async def is_ready(broker: Broker) -> bool:
    """Whether /readyz says so."""
    return (await readiness(broker))[0] == 200


async def accepted(link: Any, envelope: Any) -> int:
    """Send until it is accepted, as a daemon does; returns the last status."""
    while True:
        result = await link.request(envelope)
        if result["status"] in (200, 201):
            return int(result["status"])
        assert result["status"] in (500, 503), result
        await asyncio.sleep(0.1)


async def leases_are_renewed(url: str, members: set[str]) -> None:
    """Return when exactly these members hold leases that began after the call."""
    query = """SELECT string_agg(member_id::text, ' ') FROM mesh.presence
               WHERE lease_until > $$%s$$::timestamptz + interval '1.5 s'"""
    asked = await sql(url, "SELECT now()::text")

    async def are_renewed() -> bool:
        return set((await sql(url, query % asked) or "").split()) == members

    await eventually(are_renewed)


async def test_a_table_that_was_missing_for_longer_than_a_lease_leaves_nothing_behind(tmp_path: Path) -> None:
    """Every loop goes on: members are online, and messages between brokers arrive, also of a later broker."""
    async with (
        database() as url,
        running_broker(database_url=url, data_dir=tmp_path / "1", limits=_QUICK) as one,
    ):
        ada = await create_mesh(one)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as sending:
            await sending.settle()
            await sql(url, "ALTER TABLE mesh.presence RENAME TO elsewhere", "SELECT 1")

            async def is_said() -> bool:
                status, body = await readiness(one)
                codes = {reason["code"] for reason in body.get("reasons", ())}
                return status == 503 and {"sweep_failing", "presence_renewal_failing"} <= codes

            await eventually(is_said)
            # A stranger may ask: neither statements nor names of the database are told.
            _, told = await readiness(one)
            assert not any(word in str(told) for word in ("42P01", "relation", "mesh.presence")), told
            assert (await http_request(one.url, "GET", "/healthz"))[0] == 200
            _, page = await http_request(one.url, "GET", "/metrics")
            assert 'cm_broker_degraded{code="sweep_failing"} 1.0' in page

            async def leases_are_over() -> bool:
                left = "SELECT count(*) FROM mesh.elsewhere WHERE lease_until > now() - interval '1 s'"
                return int(await sql(url, left)) == 0

            await eventually(leases_are_over)
            await sql(url, "ALTER TABLE mesh.elsewhere RENAME TO presence", "SELECT 1")
            await eventually(lambda: is_ready(one))
            async with (
                running_broker(database_url=url, data_dir=tmp_path / "2", limits=_QUICK) as two,
                replace(bob, broker_url=two.url).connect() as receiving,
            ):
                for number in range(3):
                    await accepted(sending, ada.envelope(bob, str(number)))
                    async with asyncio.timeout(WAIT_S):
                        await receiving.acknowledge(await receiving.deliveries(1))
                await accepted(receiving, bob.envelope(ada, "back"))
                async with asyncio.timeout(WAIT_S):
                    await sending.acknowledge(await sending.deliveries(1))
                await leases_are_renewed(url, {ada.member_id, bob.member_id})
        _, page = await http_request(one.url, "GET", "/metrics")
        assert 'cm_broker_degraded{code="sweep_failing"} 0.0' in page


async def test_a_right_that_is_taken_away_for_a_while_refuses_sends_and_nothing_else(tmp_path: Path) -> None:
    """The send is transient, and accepted as soon as the right is back; no message is called a bad one."""
    async with (
        database() as url,
        running_broker(database_url=url, data_dir=tmp_path / "1", limits=_QUICK) as one,
    ):
        ada = await create_mesh(one)
        async with ada.connect() as link:
            await link.settle()
            await sql(url, "ALTER TABLE mesh.message_history RENAME TO elsewhere", "SELECT 1")
            envelope = ada.envelope("all", "x")
            result = await link.request(envelope)
            assert (result["status"], result["error"]) == (503, "storage_unavailable")
            await sql(url, "ALTER TABLE mesh.elsewhere RENAME TO message_history", "SELECT 1")
            assert await accepted(link, envelope) == 201


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def logged() -> Generator[list[logging.LogRecord]]:
    """Everything of warning level and above, and the ends of conditions."""
    handler, root = _Lines(), logging.getLogger()
    handler.setLevel(logging.INFO)
    ours = logging.getLogger("claudemesh")
    before = ours.level
    ours.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        yield handler.records
    finally:
        root.removeHandler(handler)
        ours.setLevel(before)


async def test_an_outage_is_one_line_at_its_beginning_and_one_at_its_end(
    tmp_path: Path,
) -> None:
    """However many sends, connections, requests and loops meet it; the second line counts them."""
    server = Server()
    server.start()
    try:
        with logged() as records:
            async with running_broker(
                database_url=server.url(), data_dir=tmp_path / "1", limits=replace(_QUICK, answering_s=4.0)
            ) as one:
                ada = await create_mesh(one)
                async with ada.connect() as link:
                    await link.settle()
                    server.stop(signal.SIGINT)
                    for number in range(50):
                        assert (await link.request(ada.envelope("all", str(number))))["status"] == 503
                    for _ in range(5):
                        with suppress(Exception):
                            async with ada.connect():
                                pass
                        assert not await is_ready(one)
                    shown = await asyncio.to_thread(broker_status, tmp_path)
                    assert (shown.code, "degraded  database_unreachable\n" in shown.out) == (
                        UNAVAILABLE,
                        True,
                    ), shown
                    assert "the database did not answer" in " ".join(shown.err.split())
                    server.start()
                    await eventually(lambda: is_ready(one))

                # The server may hold another database now, so daemons connect again and ask.
                async def connects() -> bool:
                    with suppress(ConnectionError, ConnectionClosed):
                        async with ada.connect() as again:
                            return await accepted(again, ada.envelope("all", "later")) == 201
                    return False

                async def is_over() -> bool:
                    return not one.context.degraded.conditions.items()

                await eventually(connects)
                await eventually(is_over)
    finally:
        server.remove()
    said = [record for record in records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in said] == ["degraded"], [vars(record) for record in said]
    begin = said[0].fields  # type: ignore[attr-defined]
    assert begin["code"] == "database_unreachable"
    ends = [record.fields for record in records if record.getMessage() == "degraded_ended"]  # type: ignore[attr-defined]
    assert [(end["code"], end["count"] >= 50) for end in ends] == [("database_unreachable", True)]
    assert not any(record.exc_info for record in records)


class SilentWay:
    """A TCP way to a test server whose connections can be made to swallow everything, both ways, for ever."""

    def __init__(self, server: Server) -> None:
        self._upstream = server.folder / ".s.PGSQL.5432"
        self.silent = False
        self._writers: list[asyncio.StreamWriter] = []
        self._swallowing: set[asyncio.StreamWriter] = set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; neither side notices the other's end."""
        if self.silent:
            self._writers.append(writer)
            self._swallowing.add(writer)
        up_reader, up_writer = await asyncio.open_unix_connection(self._upstream)
        self._writers += [writer, up_writer]
        try:
            await asyncio.gather(self._pump(reader, up_writer, writer), self._pump(up_reader, writer, writer))
        finally:
            up_writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, to: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if client not in self._swallowing:
                    to.write(data)
        if client not in self._swallowing:
            to.close()

    def swallow(self) -> None:
        """From now on nothing passes on the connections there are."""
        self._swallowing.update(self._writers)

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def way_to(server: Server, url: str) -> AsyncGenerator[tuple[SilentWay, str]]:
    """A way, and the database's address by it."""
    way = SilentWay(server)
    async with listening(way.carry) as port:
        try:
            yield way, url.replace(f"host={server.folder}", f"host=127.0.0.1&port={port}")
        finally:
            way.cut()


@pytest.mark.parametrize("healing", ["new connections pass", "nothing passes for a while"])
async def test_connections_that_swallow_everything_are_given_up_and_replaced(
    tmp_path: Path, healing: str
) -> None:
    """Sends are answered, /readyz answers all the time, and messages of another broker arrive again."""
    limits = replace(_QUICK, database=DatabaseDeadlines(use_s=4.0))
    async with (
        database() as url,
        way_to(shared_server(), url) as (way, slow),
        running_broker(database_url=slow, data_dir=tmp_path / "1", limits=limits) as one,
        running_broker(database_url=url, data_dir=tmp_path / "2", limits=_QUICK) as two,
    ):
        ada = await create_mesh(one)
        bob = await join_mesh(ada, "bob")
        there: Peer = replace(ada, broker_url=two.url)
        async with bob.connect() as receiving, there.connect() as sending:
            await receiving.settle()
            way.silent = healing != "new connections pass"
            way.swallow()
            envelope = bob.envelope(ada, "out")
            request = await receiving.send(envelope)
            if way.silent:

                async def is_said() -> bool:
                    status, body = await readiness(one)
                    codes = [reason["code"] for reason in body.get("reasons", ())]
                    return status == 503 and "database_unreachable" in codes

                await eventually(is_said)
                way.silent = False
            async with asyncio.timeout(WAIT_S):
                assert (await receiving.result(request))["status"] in (200, 201, 503)
                await accepted(receiving, envelope)
            await eventually(lambda: is_ready(one))
            await accepted(sending, there.envelope(bob, "in"))
            async with asyncio.timeout(WAIT_S):
                await receiving.acknowledge(await receiving.deliveries(1))
