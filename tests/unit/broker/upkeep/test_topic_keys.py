"""Upkeep of topic keys by the lived clock (docs/spec/broker.md, Topic keys)."""

from __future__ import annotations

from pathlib import Path

from claudemesh.protocol.sealing import BoxKeys
from claudemesh.protocol.topic_keys import open_wrap
from tests.integration.broker import test_topic_keys as keys
from tests.support.broker import create_mesh, join_mesh, running_broker
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


async def test_a_subscriber_that_was_away_for_a_month_is_owed_posts_and_keys(tmp_path: Path) -> None:
    """Of every epoch since, beside all the upkeep. Its wraps go when it has the posts."""
    clock = ManualClock()
    async with running_broker(clock=clock, data_dir=tmp_path / "broker") as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        jobs = broker.context.jobs

        async def upkeep(days: int) -> None:
            for _ in range(days):
                clock.advance(hours=DAY_H)
                for name in jobs.names:
                    await jobs.run(name)

        made = []
        async with ada.connect() as one:
            for number in range(6):
                key, _ = await keys.make(one, ada, bob, expected=number)
                made.append(key)
                assert (await one.request(keys.sealed(ada, key, b"post")))["status"] == 201
                await upkeep(5)
        epochs = list(range(1, 7))
        async with bob.connect() as two:
            found = await keys.keys_of(two, key_epochs=epochs)
            shared = BoxKeys(bob.identity.x25519_privkey).shared(ada.identity.x25519_pubkey)
            opened = {wrap.key_epoch: open_wrap(bob.mesh_id, wrap, shared) for wrap in found.wraps}
            assert [opened[number] for number in epochs] == made
            posts = await two.deliveries(6)
            assert [post["envelope"]["seal"]["epoch"] for post in posts] == epochs
            await two.acknowledge(posts)
            await two.settle()
            await upkeep(1)
            found = await keys.keys_of(two, key_epochs=epochs)
            assert sorted(wrap.key_epoch for wrap in found.wraps) == [4, 5, 6]
