"""When a job runs, and what it goes by; every planted violation is found."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from claudemesh.broker.store.protocol import Store
from claudemesh.broker.store.types import JobRun, Seen
from claudemesh.broker.upkeep.jobs import Jobs, wait_ms
from claudemesh.broker.upkeep.topic_keys import KeyUpkeep
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


@pytest.mark.parametrize("days", [31, 365, 12 * 365, -365, -56 * 365])
async def test_no_job_deletes_because_the_wall_clock_jumps(tmp_path: Path, days: float) -> None:
    """While the broker runs or before it starts: bodies, ids and members stay, and the jobs do run."""
    clock, folder = ManualClock(), tmp_path / "broker"
    async with jobs(clock, folder) as found:
        clock.jump(hours=days * 24)
        for name in found.names:
            assert (await found.run(name)).found == 0
    async with running_broker(clock=clock, data_dir=folder) as broker:
        found = broker.context.jobs
        for name in ("message-sweep", "dedupe-sweep", "ephemeral-reaper"):
            assert (await found.run(name)).count == 0
        assert (await found.run("orphan-check")).found == 0
        counted = await broker.context.store.messages.deliveries_pending()
    assert counted == 3


async def test_sweeps_run_by_the_time_that_was_lived_through(tmp_path: Path) -> None:
    """With a wall clock a year behind, too: messages go after their retention, ids after theirs."""
    clock = ManualClock()
    async with running_broker(clock=clock, data_dir=tmp_path / "broker") as broker:
        owner = await create_mesh(broker, message_retention_days=30, dedupe_retention_days=60)
        bob = await join_mesh(owner, "bob")
        envelope = owner.envelope(bob, "one")
        async with owner.connect() as link, bob.connect() as receiver:
            assert (await link.request(envelope))["status"] == 201
            await receiver.acknowledge(await receiver.deliveries(1))
            clock.jump(hours=-365 * 24)
            await broker.time.note()
            run = broker.context.jobs.run
            clock.advance(hours=30 * 24)
            assert (await run("message-sweep")).count == 0
            clock.advance(hours=1)
            assert (await run("message-sweep")).count == 1
            assert (await run("dedupe-sweep")).count == 0
            again = await link.request(envelope)
            assert (again["status"], again["history_available"]) == (200, False)
            clock.advance(hours=30 * 24)
            assert (await run("dedupe-sweep")).count == 1
            assert (await run("orphan-check")).found == 0


async def test_an_ephemeral_member_leaves_two_minutes_after_its_lease(tmp_path: Path) -> None:
    """In lived time: a jump of the wall clock removes no member, and a member that was seen since stays."""
    clock = ManualClock()
    async with running_broker(clock=clock, data_dir=tmp_path / "broker") as broker:
        owner = await create_mesh(broker)
        await join_mesh(owner, "worker", ephemeral=True)
        run, store = broker.context.jobs.run, broker.context.store
        assert (await run("ephemeral-reaper")).count == 0
        clock.jump(hours=365 * 24)
        assert (await run("ephemeral-reaper")).count == 0
        clock.advance(seconds=60)
        [absent] = await store.retention.absent_ephemerals(broker.context.lived.now_ms())
        await store.presence.members_seen([Seen(absent.mesh_id, absent.member_id, 5000, None)])
        clock.advance(seconds=60)
        assert (await run("ephemeral-reaper")).count == 0
        clock.advance(seconds=119)
        assert (await run("ephemeral-reaper")).count == 0
        clock.advance(seconds=1)
        assert (await run("ephemeral-reaper")).count == 1


async def test_members_of_ci_jobs_are_deleted_an_hour_after_they_have_left(tmp_path: Path) -> None:
    """At the second run of the job, also of one that was restarted in between. The audit stays."""
    clock, folder = ManualClock(), tmp_path / "broker"
    async with running_broker(clock=clock, data_dir=folder) as broker:
        owner = await create_mesh(broker)
        for number in range(5):
            job = await join_mesh(owner, f"ci-{number}", ephemeral=True)
            async with job.connect() as link:
                await link.call("leave")
        assert (await broker.context.jobs.run("departed-sweep")).count == 0
        assert (await broker.context.jobs.run("departed-sweep")).count == 5
        names = [one.name for one in await broker.context.store.members.all(owner.mesh_id)]
        audit = await broker.context.store.audit.newest(owner.mesh_id, 100)
    assert names == ["owner"]
    assert [event.kind for event in audit].count("member_left") == 5
    async with running_broker(clock=clock, data_dir=folder) as broker:
        assert (await broker.context.jobs.run("departed-sweep")).count == 0


HOUR = 3_600_000


@pytest.mark.parametrize(
    ("last_ms", "waits_ms"),
    [(None, 0), (0, 0), (5 * HOUR, HOUR), (4 * HOUR + 1, 1), (4 * HOUR, 0), (6 * HOUR, 0)],
)
def test_a_job_waits_for_what_is_left_of_its_interval(last_ms: int | None, waits_ms: int) -> None:
    """Since its last run, of an earlier life too; one that ran in the future, or never, is due."""
    assert wait_ms(HOUR, last_ms, 5 * HOUR) == waits_ms


async def check_ran(jobs: Jobs, store: Store, after: JobRun | None) -> JobRun:
    """Start the jobs, wait until another check than the one before has run, and stop them."""
    jobs.start()
    try:
        for _ in range(1000):
            run = (await store.upkeep.job_runs()).get("orphan-check")
            if run is not None and run != after:
                return run
            await asyncio.sleep(0.01)
        raise AssertionError("the check has not run")
    finally:
        await jobs.stop()


async def test_a_broker_that_is_restarted_daily_does_check(tmp_path: Path) -> None:
    """Each life is shorter than the interval: the last run is remembered, an overdue one comes at once."""
    clock, folder = ManualClock(), tmp_path / "broker"
    last = None
    for _ in range(3):
        async with running_broker(clock=clock, data_dir=folder) as broker:
            context = broker.context
            upkeep = KeyUpkeep(context.store, context.keys, context.lived, 90)
            parts = {
                "cluster": context.cluster,
                "feed": context.feed,
                "audit": context.audit,
                "keys": upkeep,
            }
            jobs = Jobs(context.store, **parts, time=broker.time, env=context.env, settle_s=0)  # type: ignore[arg-type]
            last = await check_ran(jobs, context.store, last)
            runs = {job: run for job, _, run in await context.jobs.schedule()}
            assert runs["orphan-check"] == last
            assert last.lived_ms <= context.lived.now_ms()
            clock.advance(hours=13)
        async with running_broker(clock=clock, data_dir=folder):
            clock.advance(hours=12)


PLANTED = {
    "DELETE FROM message_queue": {"dedupe_without_body", "orphan_history", "orphan_deliveries"},
    "DELETE FROM topic_message": {
        "dedupe_without_body",
        "orphan_history",
        "orphan_deliveries",
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
