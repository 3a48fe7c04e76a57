"""The limiter: counted per mesh and window, an id only once, a refusal not at all (broker.md, Limiter)."""

from __future__ import annotations

from claudemesh.broker.limiter.base import WINDOW_S
from claudemesh.broker.limiter.memory import MemoryLimiter
from tests.support.clock import ManualClock


async def test_a_mesh_has_its_limit_per_window() -> None:
    """Over it: refused with the time to the window's end; another mesh is not touched."""
    clock = ManualClock()
    limiter = MemoryLimiter(clock)
    for number in range(3):
        assert (await limiter.consume("mesh", "alice", f"id{number}", limit=3)).allowed
    refused = await limiter.consume("mesh", "bob", "id3", limit=3)
    assert not refused.allowed
    assert 0 < refused.retry_after_ms <= WINDOW_S * 1000
    assert (await limiter.consume("other", "alice", "id0", limit=3)).allowed
    clock.advance(seconds=refused.retry_after_ms / 1000)
    assert (await limiter.consume("mesh", "bob", "id3", limit=3)).allowed


async def test_an_id_that_was_counted_is_free_in_its_window() -> None:
    """Also when the window is full; another member's same id is another one."""
    limiter = MemoryLimiter(ManualClock())
    assert (await limiter.consume("mesh", "alice", "x", limit=1)).allowed
    assert (await limiter.consume("mesh", "alice", "x", limit=1)).allowed
    assert not (await limiter.consume("mesh", "bob", "x", limit=1)).allowed


async def test_a_refused_attempt_is_not_counted() -> None:
    """A refused id does not become free by being refused."""
    limiter = MemoryLimiter(ManualClock())
    assert (await limiter.consume("mesh", "alice", "x", limit=1)).allowed
    for _ in range(2):
        assert not (await limiter.consume("mesh", "alice", "y", limit=1)).allowed


async def test_the_wall_clock_does_not_matter() -> None:
    """Setting the clock gives nobody a second window."""
    clock = ManualClock()
    limiter = MemoryLimiter(clock)
    assert (await limiter.consume("mesh", "alice", "x", limit=1)).allowed
    clock.jump(hours=5)
    assert not (await limiter.consume("mesh", "alice", "y", limit=1)).allowed
