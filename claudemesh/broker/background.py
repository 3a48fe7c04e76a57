"""Background work of a broker: parts are started in order, and stopped in reverse order in bounded time."""

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
    """Start the parts that work in the background; the stack stops them in reverse order."""
    context.pulse.start()
    stack.push_async_callback(context.pulse.stop)
    stack.push_async_callback(context.limiter.close)
    # Stopped after every part that may still acknowledge.
    stack.push_async_callback(within, _CLOSE_S, context.acks.close)
    stack.push_async_callback(within, _CLOSE_S, context.audit.close)
    stack.push_async_callback(within, _CLOSE_S, context.leases.stop)
    await context.leases.start()
    stack.push_async_callback(context.feed.stop)
    stack.push_async_callback(within, _CLOSE_S, context.sweep.stop)
    stack.push_async_callback(context.announcer.stop)
    await share_token(context)
    await context.sweep.start()
    stack.push_async_callback(context.keys.stop)
    stack.push_async_callback(context.queues.stop)
    await context.queues.start()
    stack.push_async_callback(context.profiles.stop)
    context.jobs.start()
    stack.push_async_callback(context.jobs.stop)


async def share_token(context: Context) -> None:
    """Compare the admin token with those of other brokers on the database. `ExitWith` 78: one differs."""
    shared = context.store.cluster
    if shared is None:
        return
    mark = token_mark.mark_of(context.admin_token)
    await token_mark.require_one_token(partial(shared.marks_differ, mark))
    conditions, text = context.degraded.conditions, token_mark.DEGRADED
    shared.hold_mark(mark, lambda differs: conditions.set(token_mark.CONDITION, text if differs else None))


async def within(seconds: float, close: Callable[[], Awaitable[None]]) -> None:
    """Close a part within a time; what waits longer for a database is left to its own deadline."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await close()
