"""Upkeep of topic keys by the lived clock (docs/spec/broker.md, Topic keys)."""

from __future__ import annotations

from pathlib import Path

from tests.integration.broker import test_topic_keys as keys
from tests.support.broker import create_mesh, running_broker
from tests.support.clock import ManualClock

DAY_H = 24


async def test_a_key_of_ninety_days_is_replaced(tmp_path: Path) -> None:
    """A holder is asked for the next epoch; a younger key is left alone."""
    clock = ManualClock()
    async with running_broker(clock=clock, data_dir=tmp_path / "broker", topic_key_max_age_days=90) as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as one:
            await keys.make(one, ada)
            clock.advance(hours=89 * DAY_H)
            assert (await broker.context.jobs.run("topic-keys")).count == 0
            assert not (await keys.keys_of(one)).rekey_wanted
            clock.advance(hours=DAY_H + 1)
            assert (await broker.context.jobs.run("topic-keys")).count == 1
            assert (await keys.keys_of(one)).rekey_wanted
            assert await one.event("topic_rekey_wanted") == {"topic": "all"}
            await keys.make(one, ada, expected=1)
            assert (await broker.context.jobs.run("topic-keys")).count == 0


async def test_epochs_that_no_message_needs_are_swept_after_a_day(tmp_path: Path) -> None:
    """The last three stay."""
    clock = ManualClock()
    async with running_broker(clock=clock, data_dir=tmp_path / "broker") as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as one:
            for number in range(5):
                await keys.make(one, ada, expected=number)
            assert (await broker.context.jobs.run("topic-keys")).count == 0
            clock.advance(hours=DAY_H + 1)
            assert (await broker.context.jobs.run("topic-keys")).count == 2
            found = await keys.keys_of(one, key_epochs=[1, 2, 3, 4, 5])
            assert [epoch.key_epoch for epoch in found.epochs] == [3, 4, 5]
