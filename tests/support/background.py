"""A server of a test in an event loop and a thread of its own, of which nothing is left at the end."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
from collections.abc import Coroutine, Generator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tests.support.waiting import WAIT_S

T = TypeVar("T")


@dataclass
class Background(Generic[T]):
    """A server that runs, and its loop."""

    value: T
    loop: asyncio.AbstractEventLoop

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_S)


@contextmanager
def background(serving: AbstractAsyncContextManager[T]) -> Generator[Background[T]]:
    """Enter a context in a loop of its own, and leave it at the end.

    The loop is closed when its tasks have ended and its transports are closed. A transport that is open when
    its loop is closed is an error of the test that runs when the garbage is collected.
    """
    started: Future[Background[T]] = Future()
    ended: Future[None] = Future()
    stop = asyncio.Event()

    async def serve() -> None:
        async with serving as value:
            started.set_result(Background(value, asyncio.get_running_loop()))
            await stop.wait()
            await _accept_no_more(selector)

    selector = selectors.DefaultSelector()
    thread = threading.Thread(target=_run, args=(serve(), selector, started, ended))
    thread.start()
    made = started.result(WAIT_S)
    try:
        yield made
    finally:
        made.loop.call_soon_threadsafe(stop.set)
        ended.result(WAIT_S)
        thread.join()


def _run(
    main: Coroutine[Any, Any, None],
    selector: selectors.BaseSelector,
    started: Future[Any],
    ended: Future[None],
) -> None:
    loop = asyncio.SelectorEventLoop(selector)
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            try:
                runner.run(main)
            finally:
                runner.run(_leave_nothing(loop))
    except BaseException as error:
        (ended if started.done() else started).set_exception(error)
    else:
        ended.set_result(None)


async def _accept_no_more(selector: selectors.BaseSelector) -> None:
    """Leave new connections unaccepted, and see those that were accepted through to their handlers.

    asyncio loses a connection that it has accepted in the turn of the loop in which its server is closed.
    """
    loop = asyncio.get_running_loop()
    for key in list(selector.get_map().values()):
        link = socket.socket(fileno=key.fd)
        try:
            if link.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                loop.remove_reader(key.fd)
        finally:
            link.detach()
    for _ in range(3):
        await asyncio.sleep(0)


async def _leave_nothing(loop: asyncio.SelectorEventLoop) -> None:
    """End every task and close every transport of a loop."""
    # A connection that is cut here ends with an error.
    loop.set_exception_handler(lambda *_: None)
    own = asyncio.current_task()
    while True:
        links = [link for link in list(loop._transports.values()) if link._sock]  # type: ignore[attr-defined]
        tasks = [task for task in asyncio.all_tasks() if task is not own]
        if not links and not tasks:
            return
        # The writer of a task that ends must belong to a transport that closes, so the transports come first.
        for link in links:
            link.abort()
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
