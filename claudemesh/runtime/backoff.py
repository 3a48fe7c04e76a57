"""Exponential backoff with jitter, so that hosts do not retry in step."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Exponential delays in seconds, from `initial_s` to `cap_s`, each ± `jitter` (a fraction)."""

    initial_s: float = 0.5
    cap_s: float = 30.0
    multiplier: float = 2.0
    jitter: float = 0.25
    uniform: Callable[[float, float], float] = random.uniform

    def become(self, other: Backoff) -> None:
        """Copy the values of another backoff, so that every holder of this one uses them."""
        self.initial_s, self.cap_s = other.initial_s, other.cap_s
        self.multiplier, self.jitter = other.multiplier, other.jitter

    def delay_s(self, failures: int) -> float:
        """Return the seconds to wait after this many consecutive failures (1 or more)."""
        # Past the cap the exponent no longer matters; bounding it keeps the power finite.
        exponent = min(max(failures, 1) - 1, 64)
        base = min(self.cap_s, self.initial_s * self.multiplier**exponent)
        return base * self.uniform(1 - self.jitter, 1 + self.jitter)


class Pause:
    """A wait that can be ended early, for example when its length has changed."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()

    def end(self) -> None:
        """End the present wait, if there is one."""
        self._ended.set()

    async def rest(self, seconds: float) -> None:
        """Wait for this many seconds, or until `end`."""
        self._ended.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return
