"""The pulse: pings the database every second, and tells within a bound whether it answers."""

from __future__ import annotations

import asyncio

from claudemesh.broker.environment import Environment
from claudemesh.broker.store.protocol import Store
from claudemesh.runtime.errors import StorageUnreachable
from claudemesh.runtime.services import TaskOwner

_EVERY_S = 1.0
# A ping that takes longer counts as no answer. It goes on, and the next check waits for the same one.
_ANSWER_S = 1.5


class Pulse:
    """Reports to `Degraded` whether the database answers; at most one ping is under way."""

    def __init__(self, store: Store, env: Environment) -> None:
        self._store = store
        self._degraded = env.degraded
        self._tasks = TaskOwner(env.on_crash)
        self._ping: asyncio.Task[bool] | None = None

    def start(self) -> None:
        """Begin to ping."""
        self._tasks.start(self._run(), "pulse")

    async def stop(self) -> None:
        """Stop pinging."""
        await self._tasks.stop()

    async def check(self) -> bool:
        """Return whether the database answers, within 1.5 s."""
        ping = self._ping
        if ping is None or ping.done():
            ping = self._ping = self._tasks.start(self._send_ping(), "ping")
        await asyncio.wait([ping], timeout=_ANSWER_S)
        if not ping.done():
            self._degraded.failed("ping", StorageUnreachable("the database did not answer in time"))
            return False
        return not ping.cancelled() and ping.result()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.check()

    async def _send_ping(self) -> bool:
        try:
            await self._store.ping()
        except Exception as error:
            # Any error counts: a database that cannot be pinged serves nothing.
            self._degraded.failed("ping", StorageUnreachable(str(error) or type(error).__name__))
            return False
        self._degraded.answered()
        return True
