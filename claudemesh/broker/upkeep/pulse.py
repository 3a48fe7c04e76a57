"""Pulse: asks the database every second whether it answers, and answers for it within a bound."""

from __future__ import annotations

import asyncio

from claudemesh.broker.degraded import Degraded
from claudemesh.broker.store.protocol import Store
from claudemesh.runtime.errors import StorageUnreachable
from claudemesh.runtime.services import OnCrash, TaskOwner

_EVERY_S = 1.0
# A ping that takes longer counts as no answer; it goes on, and the next question waits for the same one.
_ANSWER_S = 1.5


class Pulse:
    """Reports to `Degraded`; at most one ping is under way."""

    def __init__(self, store: Store, degraded: Degraded, on_crash: OnCrash) -> None:
        self._store = store
        self._degraded = degraded
        self._tasks = TaskOwner(on_crash)
        self._ping: asyncio.Task[bool] | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._tasks.start(self._run(), "pulse")

    async def stop(self) -> None:
        """Stop asking."""
        await self._tasks.stop()

    async def check(self) -> bool:
        """Return whether the database answers; never later than 1.5 s."""
        ping = self._ping
        if ping is None or ping.done():
            ping = self._ping = self._tasks.start(self._ask(), "ping")
        await asyncio.wait([ping], timeout=_ANSWER_S)
        if not ping.done():
            self._degraded.failed("ping", StorageUnreachable("the database did not answer in time"))
            return False
        return not ping.cancelled() and ping.result()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.check()

    async def _ask(self) -> bool:
        try:
            await self._store.ping()
        except Exception as error:
            # Whatever it is: a database that cannot even be pinged serves nothing.
            self._degraded.failed("ping", StorageUnreachable(str(error) or type(error).__name__))
            return False
        self._degraded.answered()
        return True
