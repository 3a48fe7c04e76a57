"""Questions to the broker: what a link that ends leaves behind."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from claudemesh.daemon.calls import Calls, WrongReplies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.conditions import Conditions
from tests.support.clock import ManualClock


async def test_a_link_that_ends_while_a_question_leaves_is_told_once() -> None:
    """The caller gets the error, and no unawaited error is logged."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    leaving, down = asyncio.Event(), asyncio.Event()

    async def send(frame: bytes) -> None:
        leaving.set()
        await down.wait()
        raise ConnectionError("the link closed")

    calls = Calls(send, WrongReplies(Conditions(ManualClock()), lambda kind: None))
    asked = asyncio.ensure_future(calls.ask("peers", {}, lambda value: value, 10))
    await leaving.wait()
    calls.link_down()
    down.set()
    [error] = await asyncio.gather(asked, return_exceptions=True)
    assert isinstance(error, ProtocolError)
    assert error.code == "broker_unavailable"
    # Its traceback keeps what the question waited on.
    del asked, error
    await asyncio.sleep(0)
    gc.collect()
    assert told == []


async def test_a_question_that_is_cancelled_as_the_link_ends_is_cancelled() -> None:
    """Otherwise its task goes on, and the daemon waits for its end when it stops."""

    async def send(frame: bytes) -> None:
        return

    calls = Calls(send, WrongReplies(Conditions(ManualClock()), lambda kind: None))
    asked = asyncio.ensure_future(calls.ask("peers", {}, lambda value: value, 10))
    await asyncio.sleep(0)
    calls.link_down()
    asked.cancel()
    await asyncio.wait([asked])
    assert asked.cancelled()
