"""Keys of topics at several brokers: one database decides (docs/spec/broker.md, Topic keys)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.integration.broker import test_topic_keys as keys
from tests.integration.postgres.test_cluster import at, brokers, company
from tests.support.broker import create_mesh, join_mesh


async def test_an_epoch_made_at_one_broker_is_in_force_at_the_other(tmp_path: Path) -> None:
    """Its subscribers are told there, and sends are judged by it, without a further question."""
    async with brokers(tmp_path) as ([first, second], _):
        ada = await create_mesh(first)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as one, at(bob, second).connect() as two:
            await company(first, second)
            made = [(await keys.make(one, ada, bob, expected=number))[0] for number in range(4)]
            told = [await two.event("topic_key_changed") for _ in made]
            assert sorted(each["key_epoch"] for each in told) == [1, 2, 3, 4]
            statuses = [(await two.request(keys.sealed(bob, key, b"x")))["status"] for key in made]
            assert statuses == [422, 201, 201, 201]


async def test_of_two_makers_at_two_brokers_one_wins(tmp_path: Path) -> None:
    """In each of many races. The other is refused, and both brokers accept posts under the winner's key."""
    async with brokers(tmp_path) as ([first, second], _):
        ada = await create_mesh(first)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as one, at(bob, second).connect() as two:
            await company(first, second)
            for number in range(20):
                made = await asyncio.gather(
                    keys.make(one, ada, bob, expected=number), keys.make(two, bob, ada, expected=number)
                )
                won = [key for key, reply in made if "ok" in reply]
                lost = [keys.code(reply) for _, reply in made if "error" in reply]
                assert (len(won), lost) == (1, ["key_epoch_conflict"])
                stated = {(await keys.keys_of(link)).current for link in (one, two)}
                assert {None if each is None else each.commitment for each in stated} == {
                    won[0].commitment(ada.mesh_id)
                }
                assert (await two.request(keys.sealed(bob, won[0], b"x")))["status"] == 201


async def test_a_holder_at_another_broker_is_asked(tmp_path: Path) -> None:
    """For the wrap of a new member, and for the next epoch when a member leaves."""
    async with brokers(tmp_path) as ([first, second], _):
        ada = await create_mesh(first)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as one:
            key, _ = await keys.make(one, ada)
            async with at(bob, second).connect() as two:
                await company(first, second)
                await keys.keys_of(two)
                assert (await one.event("topic_key_wanted"))["member_id"] == bob.member_id
                await one.call("topic_wrap_add", topic="all", key_epoch=1, wraps=[keys.wrap(key, ada, bob)])
                await two.event("topic_key_added")
                await two.call("leave")
                assert await one.event("topic_rekey_wanted") == {"topic": "all"}
