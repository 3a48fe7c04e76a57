"""A proxy between daemons and broker that sees frames: drop, double, delay or cut on a named one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from claudemesh.runtime.services import TaskOwner
from tests.support.background import background
from tests.support.batches import SINGLE

FORWARD, DROP, DOUBLE, CUT, CUT_AFTER = "forward", "drop", "double", "cut", "cut_after"


@dataclass
class Rules:
    """The fault for the n-th frame of a type (from 1); all other frames are forwarded."""

    actions: dict[tuple[str, int], str] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    struck: list[tuple[str, int]] = field(default_factory=list)
    # The largest frame that the proxy takes from a daemon; a larger one ends the link with 1009.
    max_size: int | None = None

    def change(self, text: str) -> str:
        """Return what is passed on in place of a frame."""
        return text

    def behind(self, text: str) -> Iterable[str]:
        """Return frames that the proxy sends by itself, behind a frame that it has passed on."""
        return ()

    def judge(self, text: str) -> str:
        """Count a frame and say what to do with it."""
        kind = json.loads(text)["type"]
        # A frame with several items counts as one of its kind.
        kind = SINGLE.get(kind, kind)
        number = self.seen[kind] = self.seen.get(kind, 0) + 1
        action = self.actions.get((kind, number), FORWARD)
        if action != FORWARD:
            self.struck.append((kind, number))
        return action


class _Cut(Exception):
    """The connection ends here, without a goodbye."""


async def _pump(receive: Callable, send: Callable, rules: Rules) -> None:  # type: ignore[type-arg]
    while True:
        text = await receive()
        action = rules.judge(text)
        text = rules.change(text)
        if action == CUT:
            raise _Cut
        if action != DROP:
            await send(text)
        if action == DOUBLE:
            await send(text)
        if action == CUT_AFTER:
            raise _Cut
        for more in rules.behind(text):
            await send(more)


async def _serve_one(client: ServerConnection, broker_port: int, rules: Rules) -> None:
    options = {"compression": None, "max_size": None, "proxy": None, "ping_interval": None}
    async with connect(
        f"ws://127.0.0.1:{broker_port}/v1/ws",
        subprotocols=["claudemesh.v1"],  # type: ignore[list-item]
        **options,  # type: ignore[arg-type]
    ) as broker:
        tasks = TaskOwner()
        pumps = [
            tasks.start(_pump(client.recv, broker.send, rules), "up"),
            tasks.start(_pump(broker.recv, client.send, rules), "down"),
        ]
        done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        await tasks.stop()
        for task in done:
            error = task.exception()
            if isinstance(error, _Cut):
                client.transport.abort()
                broker.transport.abort()
            elif isinstance(error, ConnectionClosed) and error.rcvd is not None:
                await client.close(error.rcvd.code, error.rcvd.reason)


@asynccontextmanager
async def _proxying(broker_port: int, rules: Rules, port: int) -> AsyncGenerator[int]:
    options = {"compression": None, "max_size": rules.max_size, "ping_interval": None}
    async with serve(
        lambda client: _serve_one(client, broker_port, rules),
        "127.0.0.1",
        port,
        subprotocols=["claudemesh.v1"],  # type: ignore[list-item]
        **options,  # type: ignore[arg-type]
    ) as server:
        yield server.sockets[0].getsockname()[1]


@contextmanager
def proxy(broker_port: int, rules: Rules, port: int = 0) -> Generator[int]:
    """Run a proxy in a thread of its own; yields its port, which the broker has to know for its own."""
    with background(_proxying(broker_port, rules, port)) as made:
        yield made.value
