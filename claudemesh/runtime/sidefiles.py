"""Side files: files beside the databases, written again later when a write fails.

A process works without the newest version of these files (peers.json, pid, broker.json, ...), so a full
disk or a lack of descriptors must not end it or its connections. A write that fails is reported as the
condition `files_not_written` and tried again until it succeeds; the file then gets the current content.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.files import write_atomic
from claudemesh.runtime.oserrors import explain
from claudemesh.runtime.services import TaskOwner

_EVERY_S = 2.0
_PACE_S = 1.0
CODE = "files_not_written"

# Writes a file by its name, now or later. False: later.
WriteFile: TypeAlias = Callable[[str, Callable[[], None]], bool]


def write_never(name: str, write: Callable[[], None]) -> bool:
    """Leave a file unchanged. For programs that open a database without a daemon."""
    return False


class PacedFile:
    """Writer of a file that may change very often: at once, and after that at most once a second."""

    def __init__(
        self,
        tasks: TaskOwner,
        write: Callable[[], object],
        write_aside: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`write` writes the present content. `write_aside` does so beside the event loop: for a large file,
        which `write` then writes at the end only.
        """
        self._tasks = tasks
        self._write = write
        self._write_aside = write_aside
        self._is_written = True
        self._is_running = False

    def changed(self) -> None:
        """Write the file, at once or within a second."""
        self._is_written = False
        if not self._is_running:
            self._is_running = True
            self._tasks.start(self._writing(), "file_write")

    def close(self) -> None:
        """Write the changes that are not written yet."""
        if not self._is_written:
            self._is_written = True
            self._write()

    async def _writing(self) -> None:
        try:
            while not self._is_written:
                if self._write_aside is None:
                    self.close()
                else:
                    self._is_written = True
                    await self._write_aside()
                await asyncio.sleep(_PACE_S)
        finally:
            self._is_running = False


class SideFiles:
    """Writer of side files. It remembers those whose last write failed."""

    def __init__(self, folder: Path, conditions: Conditions) -> None:
        self._folder = folder
        self._conditions = conditions
        self._waiting: dict[str, Callable[[], None]] = {}
        self._waiting_aside: dict[str, Callable[[], Awaitable[None]]] = {}

    def write(self, name: str, write: Callable[[], None]) -> bool:
        """Write one file by calling `write`. Return False when it will be written later."""
        try:
            write()
        except OSError as error:
            self._waiting[name] = write
            self._report(error)
            return False
        self._written(name)
        return True

    async def write_aside(self, name: str, write: Callable[[], Awaitable[None]]) -> bool:
        """Write one file by awaiting `write`. Return False when it will be written later."""
        try:
            await write()
        except OSError as error:
            self._waiting_aside[name] = write
            self._report(error)
            return False
        self._written(name)
        return True

    def write_number(self, path: Path, number: int) -> None:
        """Write a file that holds one number."""
        self.write(path.name, lambda: write_atomic(path, b"%d\n" % number))

    async def retry(self) -> None:
        """Write the files whose last write failed."""
        for name, write in list(self._waiting.items()):
            if not self.write(name, write):
                return
        for name, write_aside in list(self._waiting_aside.items()):
            if not await self.write_aside(name, write_aside):
                return

    async def run(self) -> None:
        """Retry until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.retry()

    def _written(self, name: str) -> None:
        waited = (self._waiting.pop(name, None), self._waiting_aside.pop(name, None))
        if any(waited) and not self._waiting and not self._waiting_aside:
            self._conditions.end(CODE)

    def _report(self, error: OSError) -> None:
        names = ", ".join(sorted({*self._waiting, *self._waiting_aside}))
        self._conditions.begin(
            CODE,
            f"{names} cannot be written ({explain(error)}). No message is affected: the process goes on with "
            "what it has in memory and writes them as soon as it can.",
            folder=str(self._folder),
        )
