"""Keeps the directory in step with the broker: one question at a time, however many ask for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from claudemesh.daemon.identity.directory import Directory
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner

log = get_logger("directory")

Ask = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


class DirectorySync:
    """Asks the broker for the mesh's members, and saves what changed."""

    def __init__(self, directory: Directory, ask: Ask, tasks: TaskOwner) -> None:
        self._directory = directory
        self._ask = ask
        self._tasks = tasks
        self._wanted = False
        self._running = False

    async def now(self) -> None:
        """Ask and take over the answer. Raises the broker's `ProtocolError`, or broker_unavailable."""
        answer = await self._ask("peers", {})
        if self._directory.apply(answer["items"]):
            self._directory.save()

    def soon(self) -> None:
        """Ask in the background; changes that come meanwhile are covered by one more question."""
        self._wanted = True
        if not self._running:
            self._running = True
            self._tasks.start(self._until_fresh(), "directory")

    async def _until_fresh(self) -> None:
        try:
            while self._wanted:
                self._wanted = False
                try:
                    await self.now()
                except ProtocolError as error:
                    log.info("directory_refresh_failed", error=error.code)
        finally:
            self._running = False
