"""Keeps the directory in step with the broker: one question at a time, however many ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from claudemesh.daemon.calls import Ask
from claudemesh.daemon.identity.directory import Directory
from claudemesh.protocol import replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.events import MemberEvent, News
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner

log = get_logger("directory")

_FIRST_LIST_S = 2.0
_MISS_EVERY_S = 1.0

_CHANGES = frozenset({"member_added", "member_renamed", "member_revoked"})
_PRESENCE = frozenset({"peer_join", "peer_leave"})


class DirectorySync:
    """Asks the broker for the mesh's members, and saves what changed."""

    def __init__(
        self, directory: Directory, ask: Ask, tasks: TaskOwner, clock: Clock, save: Callable[[], None]
    ) -> None:
        """`save` keeps the directory on the disk, now or as soon as that can be done."""
        self._save = save
        self._directory = directory
        self._ask = ask
        self._tasks = tasks
        self._clock = clock
        # Hears of every list that brought something new.
        self.on_change: Callable[[], None] = lambda: None
        # Hears of every list, when it has been taken over.
        self.on_list: Callable[[], None] = lambda: None
        self._wanted = False
        self._running = False
        self._asked_at = -_MISS_EVERY_S
        self._synced = asyncio.Event()
        self._first_list_by = clock.monotonic() + _FIRST_LIST_S

    async def now(self) -> None:
        """Ask and take over the answer. Raises the broker's `ProtocolError`, or broker_unavailable."""
        self._asked_at = self._clock.monotonic()
        answer = await self._ask("peers", {}, replies.peers)
        if self._directory.apply(answer.items):
            self._save()
            self.on_change()
        self.on_list()
        self._synced.set()

    async def after_miss(self) -> bool:
        """Somebody is not in the directory: look once more, and return whether that brought news.

        For 2 s after the first start, and after the first link, the list may still be on its way: that
        is waited for. A broker that stays away costs nobody a wait.
        Misses ask the broker at most once a second, however many there are.
        """
        if not self._synced.is_set():
            try:
                await asyncio.wait_for(self._synced.wait(), self._first_list_by - self._clock.monotonic())
            except TimeoutError:
                return False
            return True
        if self._clock.monotonic() - self._asked_at < _MISS_EVERY_S:
            return False
        try:
            await self.now()
        except ProtocolError:
            return False
        return True

    def on_event(self, news: News) -> None:
        """Take over an event about a member. A known one needs no new list, unless it changed."""
        if not isinstance(news, MemberEvent):
            return
        if news.event in _PRESENCE:
            self._directory.set_online(news.member_id, news.event == "peer_join")
        is_unknown = self._directory.by_id(news.member_id) is None
        if news.event in _CHANGES or is_unknown:
            self.soon()

    def soon(self) -> None:
        """Ask in the background; changes that come meanwhile are covered by one more question."""
        if not self._synced.is_set():
            self._first_list_by = self._clock.monotonic() + _FIRST_LIST_S
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
