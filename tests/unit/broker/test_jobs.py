"""When a job runs, and when it refuses to; every planted violation is found."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from claudemesh.broker.jobs import ClockJumped, Jobs
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.clock import ManualClock


@asynccontextmanager
async def jobs(clock: ManualClock, folder: Path) -> AsyncGenerator[Jobs]:
    """The jobs of a broker with two meshes and some messages."""
    async with running_broker(clock=clock, data_dir=folder) as broker:
        owner = await create_mesh(broker)
        bob = await join_mesh(owner, "bob")
        async with owner.connect() as link:
            for text in ("one", "two"):
                assert (await link.request(owner.envelope(bob, text)))["status"] == 201
            assert (await link.request(owner.envelope("all", mentions=[bob.pubkey])))["status"] == 201
        yield broker.context.jobs


@pytest.mark.parametrize("hours", [1.01, -1.01, 24 * 365])
async def test_a_clock_that_has_jumped_stops_the_sweeps(tmp_path: Path, hours: float) -> None:
    """And says so; a check needs no clock. An hour is no jump: a year of messages hangs on it."""
    clock = ManualClock()
    async with jobs(clock, tmp_path / "broker") as found:
        clock.jump(hours=hours)
        for name in ("message-sweep", "dedupe-sweep", "ephemeral-reaper"):
            with pytest.raises(ClockJumped, match="set it right"):
                await found.run(name)
        assert (await found.run("orphan-check")).found == 0


async def test_time_that_passes_is_no_jump(tmp_path: Path) -> None:
    """Weeks of it."""
    clock = ManualClock()
    async with jobs(clock, tmp_path / "broker") as found:
        clock.advance(hours=50 * 24)
        assert (await found.run("message-sweep")).count == 0


PLANTED = {
    "DELETE FROM message_queue": {"dedupe_without_body", "orphan_history", "orphan_deliveries"},
    "DELETE FROM topic_message": {
        "dedupe_without_body",
        "orphan_history",
        "orphan_deliveries",
        "orphan_mentions",
    },
    "DELETE FROM message_history": {"dedupe_without_history"},
    "DELETE FROM client_message_dedupe WHERE destination_kind = 'dm'": {"orphan_queue_bodies"},
    "DELETE FROM client_message_dedupe WHERE destination_kind = 'topic'": {"orphan_topic_bodies"},
    "UPDATE client_message_dedupe SET history_available = 0": {"dedupe_without_tombstone"},
    "UPDATE client_message_dedupe SET broker_message_id = 'x' || broker_message_id": {
        "dedupe_without_body",
        "dedupe_without_history",
        "orphan_queue_bodies",
        "orphan_topic_bodies",
    },
}


@pytest.mark.parametrize("statement", PLANTED)
async def test_every_planted_violation_is_found(tmp_path: Path, statement: str) -> None:
    """One statement past the store, and the check names what it left behind."""
    folder = tmp_path / "broker"
    clock = ManualClock()
    async with jobs(clock, folder) as found:
        assert (await found.run("orphan-check")).found == 0
    with closing(sqlite3.connect(folder / "broker.db")) as database:
        database.execute(statement)
        database.commit()
    async with running_broker(clock=clock, data_dir=folder) as broker:
        outcome = await broker.context.jobs.run("orphan-check")
    assert {finding.kind for finding in outcome.findings} == PLANTED[statement]
    assert outcome.found == len(outcome.findings) > 0


async def test_a_check_under_load_raises_no_false_alarm(tmp_path: Path) -> None:
    """Accepts, acknowledgements and sweeps go on while it looks."""
    async with running_broker(data_dir=tmp_path / "broker") as broker:
        owner = await create_mesh(broker, rate_limit_per_minute=1_000_000)
        bob = await join_mesh(owner, "bob")
        run = broker.context.jobs.run
        async with owner.connect() as sender, bob.connect() as receiver:
            for _ in range(10):
                ids = [await sender.send(owner.envelope(bob)) for _ in range(60)]
                assert (await run("orphan-check")).found == 0
                await receiver.acknowledge(await receiver.deliveries(60))
                assert [(await sender.result(one))["status"] for one in ids] == [201] * 60
                await run("message-sweep")
        assert (await run("orphan-check")).found == 0
