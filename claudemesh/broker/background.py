"""Parts: the background work of a broker, started in order, stopped in the opposite one in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

from claudemesh.broker.cluster import token_mark
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
    await share_token(context)
    await context.cluster.start()
    stack.push_async_callback(context.queues.stop)
    await context.queues.start()
    context.jobs.start()
    stack.push_async_callback(context.jobs.stop)


async def share_token(context: Context) -> None:
    """Hold this broker's admin token to that of the others on its database. `ExitWith` 78: it is another."""
    shared = context.store.cluster
    if shared is None:
        return
    mark = token_mark.mark_of(context.admin_token)
    await token_mark.require_one_token(partial(shared.marks_differ, mark))
    conditions, text = context.degraded.conditions, token_mark.DEGRADED
    shared.on_marks = lambda differs: conditions.set(token_mark.CONDITION, text if differs else None)
    shared.mark = mark


async def within(seconds: float, close: Callable[[], Awaitable[None]]) -> None:
    """Close a part; what a database that does not answer keeps from ending is left to its own deadline."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await close()
