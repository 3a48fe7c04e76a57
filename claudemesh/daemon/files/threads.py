"""Threads of the parts that share and fetch files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from msgspec import Struct

P = ParamSpec("P")
R = TypeVar("R")


class Threads(Struct, frozen=True):
    """Threads for transfers, which may wait for the broker, and threads for work on this host's files."""

    transfers: ThreadPoolExecutor
    local: ThreadPoolExecutor

    async def run(self, work: Callable[P, R], *values: P.args, **named: P.kwargs) -> R:
        """Run work on this host's files."""
        return await _run(self.local, work, *values, **named)

    async def transfer(self, work: Callable[P, R], *values: P.args, **named: P.kwargs) -> R:
        """Run a transfer."""
        return await _run(self.transfers, work, *values, **named)

    def end(self) -> None:
        """Start nothing more. Work that has begun goes on to its end."""
        for executor in (self.transfers, self.local):
            executor.shutdown(wait=False, cancel_futures=True)


async def _run(executor: ThreadPoolExecutor, work: Callable[P, R], *values: P.args, **named: P.kwargs) -> R:
    return await asyncio.wrap_future(executor.submit(work, *values, **named))
