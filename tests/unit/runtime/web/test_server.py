"""The HTTP server at rest: an idle process is not woken by it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from claudemesh.runtime.web.asgi import Receive, Scope, Send
from claudemesh.runtime.web.replies import Reply, respond
from claudemesh.runtime.web.server import HttpServer
from claudemesh.runtime.web.sockets import bind_unix


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, Reply(200, {}))


def timers() -> list[asyncio.TimerHandle]:
    """The timers of the running loop, which is asyncio's own: uvloop shows none."""
    scheduled: list[asyncio.TimerHandle] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return [timer for timer in scheduled if not timer.cancelled()]


def test_an_idle_server_sets_no_timer(tmp_path: Path) -> None:
    """And it ends when it is told to."""

    async def scenario() -> None:
        server = HttpServer(_app, bind_unix(tmp_path / "sock"))
        await server.start()
        try:
            # Each task that is ready runs until it waits.
            for _ in range(10):
                await asyncio.sleep(0)
            assert timers() == []
        finally:
            await server.stop()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(scenario())
