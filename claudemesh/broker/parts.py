"""Parts: the background work of a broker, started in order, stopped in the opposite one in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from claudemesh.broker.context import Context

_CLOSE_S = 5.0


async def start_parts(context: Context, stack: AsyncExitStack) -> None:
    """Start what works in the background; the stack stops it in the opposite order, in bounded time."""
    context.pulse.start()
    stack.push_async_callback(context.pulse.stop)
    stack.push_async_callback(context.limiter.close)
    # Behind everything that may still acknowledge.
    stack.push_async_callback(within, _CLOSE_S, context.acks.close)
    stack.push_async_callback(within, _CLOSE_S, context.audit.close)
    stack.push_async_callback(within, _CLOSE_S, context.presence.stop)
    await context.presence.start()
    stack.push_async_callback(context.feed.stop)
    stack.push_async_callback(within, _CLOSE_S, context.cluster.stop)
    stack.push_async_callback(context.announcer.stop)
    await context.cluster.start()
    stack.push_async_callback(context.queues.stop)
    await context.queues.start()
    context.jobs.start()
    stack.push_async_callback(context.jobs.stop)


async def within(seconds: float, close: Callable[[], Awaitable[None]]) -> None:
    """Close a part; what a database that does not answer keeps from ending is left to its own deadline."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await close()
