"""A connection pooler before the database: used when it keeps sessions whole, refused when it does not."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from claudemesh.broker.app import Broker
from claudemesh.broker.settings import BrokerSettings, Limits
from claudemesh.broker.store.deadlines import DatabaseDeadlines
from claudemesh.runtime.exits import CONFIGURATION, UNAVAILABLE, ExitWith
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.pgbouncer import IGNORED, pgbouncer, through
from tests.support.postgres import empty_database, sql
from tests.support.values import replace


async def test_a_broker_works_behind_a_pooler_in_session_mode(tmp_path: Path) -> None:
    """Two brokers, and a message from one to the other arrives by its signal."""
    async with AsyncExitStack() as stack:
        direct = await stack.enter_async_context(empty_database())
        url = through(direct, stack.enter_context(pgbouncer("session")))
        one, two = [
            await stack.enter_async_context(running_broker(database_url=url, data_dir=tmp_path / str(number)))
            for number in range(2)
        ]
        ada = await create_mesh(one)
        bob = replace(await join_mesh(ada, "bob"), broker_url=two.url)
        async with ada.connect() as sending, bob.connect() as receiving:
            for number in range(20):
                assert (await sending.request(ada.envelope(bob, str(number))))["status"] == 201
                await receiving.acknowledge(await receiving.deliveries(1))


@pytest.mark.parametrize("order", ["server_round_robin = 0", "server_round_robin = 1"])
@pytest.mark.parametrize("ignored", ["", IGNORED], ids=["strict", "lenient"])
@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_a_pooler_that_shares_sessions_is_refused_by_name(
    tmp_path: Path, mode: str, ignored: str, order: str
) -> None:
    """Before anything is written, whether or not the pooler lets the driver's parameters pass."""
    async with empty_database() as direct:
        with pgbouncer(mode, ignored, order, "min_pool_size = 2") as query:
            settings = BrokerSettings(
                listen="127.0.0.1:0", data_dir=tmp_path / "broker", database_url=through(direct, query)
            )
            with pytest.raises(ExitWith) as caught:
                await Broker(settings).start()
        assert (caught.value.code, caught.value.error) == (CONFIGURATION, "database_sessions_shared")
        assert "pool_mode = session" in caught.value.message
        assert "\n" not in caught.value.message
        assert await sql(direct, "SELECT count(*) FROM pg_namespace WHERE nspname = 'mesh'") == 0


async def test_a_pooler_with_one_connection_is_refused_by_name(tmp_path: Path) -> None:
    """A broker needs several at once; it says so instead of waiting for them later."""
    async with empty_database() as direct:
        with pgbouncer("session", "default_pool_size = 1") as query:
            settings = BrokerSettings(
                listen="127.0.0.1:0",
                data_dir=tmp_path / "broker",
                database_url=through(direct, query),
                limits=Limits(database=DatabaseDeadlines(connect_s=3.0)),
            )
            with pytest.raises(ExitWith) as caught:
                await Broker(settings).start()
    assert (caught.value.code, caught.value.error) == (UNAVAILABLE, "database_connections_missing")
