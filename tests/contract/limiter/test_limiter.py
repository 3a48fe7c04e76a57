"""The limiter: counted per mesh and window, an id only once, a refusal not at all (broker.md, Limiter)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager

import pytest

from claudemesh.broker.limiter.base import WINDOW_S, Count, Limiter
from claudemesh.broker.limiter.memory import MemoryLimiter
from claudemesh.broker.limiter.redis import RedisLimiter
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.protocol.ids import UlidFactory
from claudemesh.runtime.clock import SystemClock
from claudemesh.runtime.exits import ExitWith
from tests.support.clock import ManualClock
from tests.support.redis import RedisServer, redis_server

_mesh = UlidFactory(lambda: 1, lambda count: bytes(count)).new
engines = pytest.mark.parametrize("engine", ["memory", "redis"])


@pytest.fixture(scope="module")
def server() -> Generator[RedisServer]:
    """A Redis of this module's own."""
    with redis_server() as running:
        yield running


@asynccontextmanager
async def limiter(engine: str, server: RedisServer) -> AsyncGenerator[Limiter]:
    """A limiter of this kind."""
    made: Limiter = MemoryLimiter(ManualClock())
    if engine == "redis":
        made = RedisLimiter(server.url, SystemClock(), BrokerMetrics())
    try:
        yield made
    finally:
        await made.close()


async def allowed(made: Limiter, mesh: str, member: str, *ids: str, limit: int) -> list[bool]:
    """Which of these ids may go on."""
    decisions = await made.consume([Count(mesh, member, one, limit) for one in ids])
    return [decision.allowed for decision in decisions]


@engines
async def test_a_mesh_has_its_limit_per_window(engine: str, server: RedisServer) -> None:
    """Over it: refused with the time to the window's end; another mesh is not touched."""
    async with limiter(engine, server) as made:
        mesh, other = _mesh(), _mesh()
        assert await allowed(made, mesh, "alice", "a", "b", "c", "d", limit=3) == [True, True, True, False]
        [refused] = await made.consume([Count(mesh, "bob", "e", 3)])
        assert not refused.allowed
        assert 0 < refused.retry_after_ms <= WINDOW_S * 1000
        assert await allowed(made, other, "alice", "a", limit=3) == [True]


@engines
async def test_an_id_that_was_counted_is_free_in_its_window(engine: str, server: RedisServer) -> None:
    """Also when the window is full, and twice in one batch; another member's same id is another one."""
    async with limiter(engine, server) as made:
        mesh = _mesh()
        assert await allowed(made, mesh, "alice", "x", "x", limit=1) == [True, True]
        assert await allowed(made, mesh, "alice", "x", limit=1) == [True]
        assert await allowed(made, mesh, "bob", "x", limit=1) == [False]


@engines
async def test_a_refused_attempt_is_not_counted(engine: str, server: RedisServer) -> None:
    """A refused id does not become free by being refused."""
    async with limiter(engine, server) as made:
        mesh = _mesh()
        assert await allowed(made, mesh, "alice", "x", limit=1) == [True]
        assert await allowed(made, mesh, "alice", "y", "y", limit=1) == [False, False]
        assert await allowed(made, mesh, "alice", "y", limit=2) == [True]


@engines
async def test_meshes_in_one_batch_are_counted_apart(engine: str, server: RedisServer) -> None:
    """Each by its own limit, answered in the order that was asked."""
    async with limiter(engine, server) as made:
        first, second = _mesh(), _mesh()
        batch = [
            Count(mesh, "alice", f"id{n}", 1 if mesh == first else 2)
            for n in range(3)
            for mesh in (first, second)
        ]
        decisions = await made.consume(batch)
        assert [decision.allowed for decision in decisions] == [True, True, False, True, False, False]


async def test_there_is_room_only_where_every_one_of_them_would_be_allowed() -> None:
    """Asking counts nothing; what others count as well is never certain."""
    clock = ManualClock()
    made = MemoryLimiter(clock)
    three = [Count("mesh", "alice", f"id{n}", 3) for n in range(3)]
    for _ in range(2):
        assert made.has_room(three)
        assert not made.has_room([*three, Count("mesh", "bob", "one-more", 3)])
    assert made.has_room([*three, Count("other", "bob", "x", 1)])
    await made.consume(three[:1])
    assert not made.has_room([*three[1:], Count("mesh", "bob", "x", 3)])
    assert made.has_room(three[1:])
    clock.advance(seconds=WINDOW_S)
    assert made.has_room(three)


async def test_a_limiter_that_is_shared_is_never_certain(server: RedisServer) -> None:
    """Other brokers count at the same time."""
    async with limiter("redis", server) as made:
        assert not made.has_room([Count(_mesh(), "alice", "x", 1000)])


async def test_a_new_window_begins_by_the_monotonic_clock() -> None:
    """Setting the clock gives nobody a second window."""
    clock = ManualClock()
    made = MemoryLimiter(clock)
    assert await allowed(made, "mesh", "alice", "x", limit=1) == [True]
    clock.jump(hours=5)
    assert await allowed(made, "mesh", "alice", "y", limit=1) == [False]
    clock.advance(seconds=WINDOW_S)
    assert await allowed(made, "mesh", "alice", "y", limit=1) == [True]


async def test_brokers_count_together(server: RedisServer) -> None:
    """Whichever of them is asked, also at the same moment: never more than the limit."""
    mesh, made = _mesh(), [RedisLimiter(server.url, SystemClock(), BrokerMetrics()) for _ in range(3)]
    asked = [
        allowed(one, mesh, "alice", f"{n}-{i}", limit=50) for i in range(30) for n, one in enumerate(made)
    ]
    assert sum(answer for answers in await asyncio.gather(*asked) for answer in answers) == 50
    for one in made:
        await one.close()


async def test_a_redis_that_is_away_lets_everybody_through_and_is_asked_again() -> None:
    """It says so, and counts again by itself once it is back."""
    clock, metrics = ManualClock(), BrokerMetrics()
    with redis_server() as server:
        made = RedisLimiter(server.url, clock, metrics)
        assert await allowed(made, "mesh", "alice", "x", limit=1) == [True]
        assert made.kind == "redis"
        server.stop()
        assert await allowed(made, "mesh", "alice", "y", "z", limit=1) == [True, True]
        assert made.kind == "open"
        assert b'rate_limit_decisions_total{decision="unavailable"} 2.0' in metrics.render()
        server.start()
        assert await allowed(made, "mesh", "alice", "y", limit=1) == [True]
        assert made.kind == "open"
        clock.advance(seconds=1.5)
        assert await allowed(made, "mesh", "alice", "x", "y", limit=1) == [True, False]
        assert made.kind == "redis"
        await made.close()


def test_a_wrong_url_is_named_without_its_password() -> None:
    """Exit 78."""
    with pytest.raises(ExitWith, match="--redis-url") as caught:
        RedisLimiter("http://:secret@host", SystemClock(), BrokerMetrics())
    assert "secret" not in str(caught.value)
