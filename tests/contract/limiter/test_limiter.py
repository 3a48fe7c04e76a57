"""Limiter: token buckets; an id counts once, a refusal does not (docs/spec/broker.md, Limiter)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from claudemesh.broker.limiter.base import Allowance, Count, Limiter
from claudemesh.broker.limiter.memory import MemoryLimiter
from claudemesh.broker.limiter.redis import _SCRIPT, RedisLimiter, decisions_of, script_arguments
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.protocol.ids import UlidFactory
from claudemesh.runtime.clock import Clock, SystemClock
from claudemesh.runtime.exits import ExitWith
from tests.support.clock import ManualClock
from tests.support.redis import RedisServer, redis_server
from tests.support.waiting import WAIT_S

_mesh = UlidFactory(lambda: 1, lambda count: bytes(count)).new
engines = pytest.mark.parametrize("engine", ["memory", "redis"])


@pytest.fixture(scope="module")
def server() -> Generator[RedisServer]:
    """A Redis of this module's own."""
    with redis_server() as running:
        yield running


def in_redis(url: str, clock: Clock | None = None, metrics: BrokerMetrics | None = None) -> RedisLimiter:
    """A limiter for which a Redis that a loaded machine leaves waiting is not away."""
    return RedisLimiter(url, clock or SystemClock(), metrics or BrokerMetrics(), answer_s=30.0)


@asynccontextmanager
async def limiter(engine: str, server: RedisServer) -> AsyncGenerator[Limiter]:
    """A limiter of this kind."""
    made: Limiter = MemoryLimiter(ManualClock())
    if engine == "redis":
        made = in_redis(server.url)
    try:
        yield made
    finally:
        await made.close()


def count(
    mesh: str,
    member: str,
    one: str,
    *,
    limit: int = 10**9,
    own: int = 10**9,
    size: int = 0,
    rate: int = 10**12,
) -> Count:
    """One id: `limit` sends of the mesh a minute, `own` of the member, `rate` bytes of it."""
    return Count(mesh, member, one, size, Allowance(limit, own, rate))


async def allowed(made: Limiter, mesh: str, member: str, *ids: str, **limits: int) -> list[bool]:
    """Return the ids that are allowed."""
    decisions = await made.consume([count(mesh, member, one, **limits) for one in ids])
    return [decision.allowed for decision in decisions]


class Since:
    """A moment from which the tokens of a limiter come, also while a slow machine is about something else."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def is_left(self, wait_ms: float, of_ms: float) -> bool:
        """Whether a wait is what is left of this time; 50 ms are for rounding."""
        passed_ms = (time.monotonic() - self._began) * 1000
        return of_ms - passed_ms - 50 <= wait_ms <= of_ms + 50


# Twelve a minute: three at once, then one every five seconds.
THREE = 12


@engines
async def test_a_mesh_may_send_a_quarter_of_its_minute_at_once(engine: str, server: RedisServer) -> None:
    """Above it every sender is refused, with the time to the next token. Another mesh is not affected."""
    async with limiter(engine, server) as made:
        mesh, other, since = _mesh(), _mesh(), Since()
        ids = ("a", "b", "c", "d")
        assert await allowed(made, mesh, "alice", *ids, limit=THREE) == [True, True, True, False]
        [refused] = await made.consume([count(mesh, "bob", "e", limit=THREE)])
        assert (refused.allowed, refused.bucket) == (False, "mesh")
        assert since.is_left(refused.retry_after_ms, 5000)
        assert await allowed(made, other, "alice", "a", limit=THREE) == [True]


@engines
async def test_one_members_excess_is_that_members_refusal(engine: str, server: RedisServer) -> None:
    """Its neighbours go on sending."""
    async with limiter(engine, server) as made:
        mesh = _mesh()
        ids = ("a", "b", "c", "d")
        assert await allowed(made, mesh, "alice", *ids, own=THREE) == [True, True, True, False]
        [refused] = await made.consume([count(mesh, "alice", "e", own=THREE)])
        assert (refused.allowed, refused.bucket) == (False, "member")
        assert await allowed(made, mesh, "bob", *ids, own=THREE) == [True, True, True, False]


@engines
async def test_a_member_has_its_bytes(engine: str, server: RedisServer) -> None:
    """1,200 a minute: 300 at once. A send of more than that goes when the bucket is full, and is paid for."""
    async with limiter(engine, server) as made:
        mesh, sizes, since = _mesh(), (100, 150, 100, 50), Since()
        batch = [count(mesh, "alice", f"{n}", size=size, rate=1200) for n, size in enumerate(sizes)]
        decisions = await made.consume(batch)
        assert [decision.allowed for decision in decisions] == [True, True, False, True]
        assert decisions[2].bucket == "bytes"
        assert since.is_left(decisions[2].retry_after_ms, 2500)
        since = Since()
        assert await allowed(made, mesh, "bob", "x", size=900, rate=1200) == [True]
        [refused] = await made.consume([count(mesh, "bob", "y", size=1, rate=1200)])
        assert since.is_left(refused.retry_after_ms, 30_050)


@engines
async def test_an_id_that_was_counted_is_free_for_a_minute(engine: str, server: RedisServer) -> None:
    """Also when the bucket is empty, and twice in one batch; another member's same id is another one."""
    async with limiter(engine, server) as made:
        mesh = _mesh()
        assert await allowed(made, mesh, "alice", "x", "x", limit=1) == [True, True]
        assert await allowed(made, mesh, "alice", "x", limit=1) == [True]
        assert await allowed(made, mesh, "bob", "x", limit=1) == [False]


@engines
async def test_a_refused_attempt_is_not_counted(engine: str, server: RedisServer) -> None:
    """A refused id does not become free by being refused, and takes nothing from what comes after it."""
    async with limiter(engine, server) as made:
        mesh, since = _mesh(), Since()
        assert await allowed(made, mesh, "alice", "x", own=4) == [True]
        assert await allowed(made, mesh, "alice", "y", "y", own=4) == [False, False]
        [again] = await made.consume([count(mesh, "alice", "y", own=4)])
        assert since.is_left(again.retry_after_ms, 15_000)
        assert await allowed(made, mesh, "bob", "y", own=4) == [True]


@engines
async def test_those_refused_at_once_are_told_times_one_after_another(
    engine: str, server: RedisServer
) -> None:
    """All of them at the first one's time would only be refused again."""
    async with limiter(engine, server) as made:
        mesh, since = _mesh(), Since()
        decisions = await made.consume([count(mesh, "alice", f"{n}", own=THREE) for n in range(6)])
        waits = [decision.retry_after_ms for decision in decisions]
        assert waits[:3] == [0, 0, 0]
        for wait, due in zip(waits[3:], (5000, 10_000, 15_000), strict=True):
            assert since.is_left(wait, due)


@engines
async def test_meshes_in_one_batch_are_counted_apart(engine: str, server: RedisServer) -> None:
    """Each by its own limit, answered in the order that was asked."""
    async with limiter(engine, server) as made:
        first, second = _mesh(), _mesh()
        batch = [
            count(mesh, "alice", f"id{n}", limit=4 if mesh == first else 8)
            for n in range(3)
            for mesh in (first, second)
        ]
        decisions = await made.consume(batch)
        assert [decision.allowed for decision in decisions] == [True, True, False, True, False, False]


async def test_there_is_room_only_where_every_one_of_them_would_be_allowed() -> None:
    """Asking counts nothing; what others count as well is never certain."""
    clock = ManualClock()
    made = MemoryLimiter(clock)
    three = [count("mesh", "alice", f"id{n}", limit=THREE) for n in range(3)]
    for _ in range(2):
        assert made.has_room(three)
        assert not made.has_room([*three, count("mesh", "bob", "one-more", limit=THREE)])
    assert made.has_room([*three, count("other", "bob", "x", limit=4)])
    await made.consume(three[:1])
    assert not made.has_room([*three[1:], count("mesh", "bob", "x", limit=THREE)])
    assert made.has_room(three[1:])
    clock.advance(seconds=5)
    assert made.has_room(three)


@pytest.mark.parametrize(("limits", "size"), [({"limit": 7}, 0), ({"own": 90}, 0), ({"rate": 5000}, 777)])
async def test_a_send_that_waits_as_long_as_it_is_told_is_taken(limits: dict[str, int], size: int) -> None:
    """And a millisecond before it is not."""
    clock = ManualClock()
    made = MemoryLimiter(clock)
    number = 0
    for _ in range(20):
        while True:
            number += 1
            [decision] = await made.consume([count("mesh", "alice", f"{number}", size=size, **limits)])
            if not decision.allowed:
                break
        clock.advance(seconds=(decision.retry_after_ms - 1) / 1000)
        assert await allowed(made, "mesh", "alice", "early", size=size, **limits) == [False]
        clock.advance(seconds=0.001)
        assert await allowed(made, "mesh", "alice", f"{number}", size=size, **limits) == [True]


async def test_an_hour_of_sending_brings_an_hours_tokens() -> None:
    """The burst once, and the rate from then on."""
    clock = ManualClock()
    made = MemoryLimiter(clock)
    taken = 0
    for second in range(3600):
        taken += sum(await allowed(made, "mesh", "alice", *(f"{second}-{n}" for n in range(9)), own=240))
        clock.advance(seconds=1)
    assert 240 * 60 + 60 - 4 <= taken <= 240 * 60 + 60


async def test_a_counted_id_costs_again_after_a_minute() -> None:
    clock = ManualClock()
    made = MemoryLimiter(clock)
    assert await allowed(made, "mesh", "alice", "x", own=2) == [True]
    clock.advance(seconds=59)
    assert await allowed(made, "mesh", "alice", "x", "y", own=2) == [True, True]
    clock.advance(seconds=1)
    assert await allowed(made, "mesh", "alice", "x", own=2) == [False]


async def test_ids_are_held_for_a_minute_each_however_they_were_counted() -> None:
    """One by one or together. Later ones stay when earlier ones are forgotten."""
    clock = ManualClock()
    made = MemoryLimiter(clock)
    held = partial(allowed, made, "mesh", "alice", own=16)
    # Four at once: the fifth does not fit, so each is counted by itself.
    assert await held("a", "b", "c", "d", "e") == [True] * 4 + [False]
    clock.advance(seconds=30)
    assert await held("f", "g") == [True, True]
    clock.advance(seconds=30)
    # The first four are forgotten, and the two behind them cost nothing yet.
    assert await held("f", "g", "h", "i", "j", "k") == [True] * 6
    assert await held("l") == [False]
    clock.advance(seconds=60)
    assert await held("a", "f", "g", "h") == [True] * 4
    assert await held("i") == [False]


async def test_both_engines_decide_alike(server: RedisServer) -> None:
    """The script, with its clock moved by hand, beside the memory's: every decision and every wait."""
    clock, dice = ManualClock(), random.Random(7)
    made, mesh = MemoryLimiter(clock), _mesh()
    by_hand = _SCRIPT.replace("redis.call('TIME')", "{table.remove(ARGV, 5), table.remove(ARGV, 5)}")
    assert by_hand != _SCRIPT
    for _ in range(300):
        clock.advance(seconds=dice.choice([0, 0.001, 0.25, 3, 20]))
        batch = [
            count(
                mesh,
                dice.choice(["alice", "bob"]),
                f"{dice.randrange(200)}",
                limit=240,
                own=120,
                size=dice.randrange(400),
                rate=60_000,
            )
            for _ in range(dice.randrange(1, 12))
        ]
        keys, arguments = script_arguments(batch)
        now_us = round(clock.monotonic() * 1_000_000)
        arguments[4:4] = divmod(now_us, 1_000_000)
        redis: Any = Redis.from_url(server.url)
        async with aclosing(redis):
            answers = await redis.eval(by_hand, len(keys), *keys, *arguments)
        assert decisions_of(answers) == await made.consume(batch)


async def test_a_limiter_that_is_shared_is_never_certain(server: RedisServer) -> None:
    """Other brokers count at the same time."""
    async with limiter("redis", server) as made:
        assert not made.has_room([count(_mesh(), "alice", "x")])


async def test_a_clock_that_is_set_brings_no_tokens() -> None:
    """A bucket refills by the monotonic clock."""
    clock = ManualClock()
    made = MemoryLimiter(clock)
    assert await allowed(made, "mesh", "alice", "x", limit=4) == [True]
    for hours in (5, -10, 24 * 365):
        clock.jump(hours=hours)
        assert await allowed(made, "mesh", "alice", "y", limit=4) == [False]
    clock.advance(seconds=15)
    assert await allowed(made, "mesh", "alice", "y", limit=4) == [True]


async def test_brokers_count_together(server: RedisServer) -> None:
    """Whichever of them is asked, also at the same moment: never more than the limit."""
    mesh, made = _mesh(), [in_redis(server.url) for _ in range(3)]
    asked = [
        allowed(one, mesh, "alice", f"{n}-{i}", limit=200) for i in range(30) for n, one in enumerate(made)
    ]
    began = time.monotonic()
    taken = sum(answer for answers in await asyncio.gather(*asked) for answer in answers)
    # A quarter of the minute at once, and what the time has added meanwhile.
    assert 50 <= taken <= 51 + (time.monotonic() - began) * 200 / 60
    for one in made:
        await one.close()


async def test_a_redis_that_is_away_lets_everybody_through_and_is_asked_again() -> None:
    """It says so, and counts again by itself once it is back."""
    clock, metrics = ManualClock(), BrokerMetrics()
    with redis_server() as server:
        made = in_redis(server.url, clock, metrics)
        assert await allowed(made, "mesh", "alice", "x", limit=1) == [True]
        assert made.kind == "redis"
        server.stop()
        assert await allowed(made, "mesh", "alice", "y", "z", limit=1) == [True, True]
        assert made.kind == "open"
        assert b'rate_limit_decisions_total{decision="unavailable"} 2.0' in metrics.render()
        server.start()
        assert await allowed(made, "mesh", "alice", "y", limit=1) == [True]
        assert made.kind == "open"
        answers: list[bool] = []
        async with asyncio.timeout(WAIT_S):
            while made.kind == "open":
                clock.advance(seconds=1.5)
                answers = await allowed(made, "mesh", "alice", "x", "y", limit=1)
        assert answers == [True, False]
        await made.close()


def test_a_wrong_url_is_named_without_its_password() -> None:
    """Exit 78."""
    with pytest.raises(ExitWith, match="--redis-url") as caught:
        RedisLimiter("http://:secret@host", SystemClock(), BrokerMetrics())
    assert "secret" not in str(caught.value)
