"""Directory sync: keeps the directory in step with the broker's list of members.

When a link opens, the daemon asks for the changes since its version of the list. From then on the broker
sends each change as an event. It is applied if it begins at the daemon's version. Otherwise, and for an
unknown member, the daemon asks again; simultaneous requests share one call. A broker with another history
answers with its complete list, page by page.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from claudemesh.daemon.calls import Ask
from claudemesh.daemon.identity.changes import MemberChange
from claudemesh.daemon.identity.directory import Directory
from claudemesh.protocol import replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.events import MemberEvent, News
from claudemesh.protocol.replies import MAX_MEMBERS, MEMBERS_ASKED, PeerList, version_number
from claudemesh.runtime.aside import Slices
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner
from claudemesh.runtime.sidefiles import PacedFile
from claudemesh.runtime.sparse import SparseLog

log = SparseLog(get_logger("directory"))

_FIRST_LIST_S = 2.0
# The same once the link is open and the list has been asked for.
_LINKED_LIST_S = 10.0
_MISS_EVERY_S = 1.0
# After an event that makes all members ask again, each asks at a random moment within this time.
SPREAD_S = 2.0
# Upper bound for the pages of a list; no list has as many.
MOST_PAGES = 20_000
# Number of new members whose keys are verified before the event loop runs other tasks.
_AT_ONCE = 32

_CHANGES = frozenset({"member_added", "member_updated", "member_revoked"})


class DirectorySync:
    """Asks the broker for the mesh's members, applies answers and events, and saves changes."""

    def __init__(
        self,
        directory: Directory,
        ask: Ask,
        tasks: TaskOwner,
        clock: Clock,
        file: PacedFile,
        conditions: Conditions,
        *,
        spread_s: float = SPREAD_S,
        most_pages: int = MOST_PAGES,
    ) -> None:
        """`file` writes the directory to disk, now or as soon as the disk allows it.

        After an event that makes all members ask again, the call is made within `spread_s` seconds. A list
        of more than `most_pages` pages is refused.
        """
        self._spread_s = spread_s
        self._most_pages = most_pages
        self._directory = directory
        self._ask = ask
        self._tasks = tasks
        self._clock = clock
        self._conditions = conditions
        self._change_handlers: list[Callable[[], None]] = []
        self._page_handlers: list[Callable[[PeerList], None]] = []
        self._history_handlers: list[Callable[[], None]] = []
        self._news_handlers: list[Callable[[Sequence[MemberChange]], None]] = []
        self._wanted = False
        self._running = False
        self._is_later = False
        self._file = file
        self._asking = asyncio.Lock()
        # Whether the broker's list has no versions: it lists all members each time.
        self._is_plain = False
        self._asks_online = True
        self._asked_at = -_MISS_EVERY_S
        self._synced = asyncio.Event()
        # Whether the list was applied since the link has opened.
        self._is_current = False
        self._first_list_by = clock.monotonic() + _FIRST_LIST_S

    def on_change(self, handler: Callable[[], None]) -> None:
        """Call `handler` after each answer or change that brought something new."""
        self._change_handlers.append(handler)

    def on_news(self, handler: Callable[[Sequence[MemberChange]], None]) -> None:
        """Call `handler` with the changes of known members."""
        self._news_handlers.append(handler)

    def on_page(self, handler: Callable[[PeerList], None]) -> None:
        """Call `handler` with each page and change, when its entries have been taken over."""
        self._page_handlers.append(handler)

    def on_other_history(self, handler: Callable[[], None]) -> None:
        """Call `handler` when a complete list took the place of one that was followed, before `on_change`."""
        self._history_handlers.append(handler)

    async def now(self) -> None:
        """Ask the broker and apply the answer. Raise the broker's `ProtocolError`, or broker_unavailable."""
        self._asked_at = self._clock.monotonic()
        async with self._asking:
            changed = await self._catch_up()
        self._is_current = True
        self._tell(changed=changed)
        self._synced.set()

    async def know(self, member_ids: Collection[str]) -> None:
        """Ask for members that the directory lacks, also for those that have left. Raise `ProtocolError`.

        A message of a member may arrive after it has left the mesh, and the list lacks it then.
        """
        await self.now()
        missing = sorted(one for one in member_ids if self._directory.by_id(one) is None)
        for start in range(0, len(missing), MEMBERS_ASKED):
            asked = missing[start : start + MEMBERS_ASKED]
            try:
                found = await self._ask("members_left", {"member_ids": asked}, replies.members_left)
            except ProtocolError as error:
                if error.code == "unknown_method":
                    return  # an older broker
                raise
            for entry in found.items:
                await self._directory.prove(entry)
                if entry.member_id in asked and self._directory.apply_one(entry):
                    self._file.changed()

    def link_up(self, *, asks_online: bool = True) -> None:
        """Ask on a new link. `asks_online`: also for the online members, which this broker does not send."""
        self._is_plain = self._is_current = False
        self._asks_online = asks_online
        self.soon()

    @property
    def may_be_behind(self) -> bool:
        """Whether the broker may not know present keys of members: its list shows older ones, or is not here
        yet."""
        return not self._is_current or self._directory.lists_older_keys

    async def _catch_up(self) -> bool:
        """Request and apply page after page; return whether anything changed."""
        directory, changed, listed = self._directory, False, set[str]()
        followed = directory.version
        position: dict[str, Any] = {} if followed is None else {"since": followed}
        for _ in range(self._most_pages):
            page = await self._page({"follow": True, "online": self._asks_online, **position})
            changed |= await self._take_slowly(page)
            listed.update(entry.member_id for entry in page.items)
            if len(listed) > MAX_MEMBERS:
                raise ProtocolError("bad_reply", f"The broker lists more than {MAX_MEMBERS} members.")
            if page.next is None:
                if page.is_whole and await self._unlist_slowly(listed):
                    changed = True
                    await self._judge_again()
                self._note(page.version)
                if page.is_whole and followed is not None:
                    for told in self._history_handlers:
                        told()
                return changed
            if page.is_whole:
                position = {"after": page.next}
            else:
                self._note(page.version)
                position = {"since": page.version}
        raise ProtocolError("bad_reply", "The broker's list of members has no end.")

    async def _page(self, params: Mapping[str, Any]) -> PeerList:
        try:
            return await self._ask("peers", {} if self._is_plain else params, replies.peers)
        except ProtocolError as error:
            if self._is_plain or error.code != "unknown_field":
                raise
        self._is_plain = True
        return await self._ask("peers", {}, replies.peers)

    async def _take_slowly(self, page: PeerList) -> bool:
        """Apply a page. Other tasks of the loop run between its entries."""
        # Members that have left come first: another one may have taken a name that they have released.
        changed, slices = False, Slices()
        for member_id in page.gone:
            await slices.rest()
            changed |= self._directory.gone((member_id,))
        for entry in page.items:
            await slices.rest()
            await self._directory.prove(entry)
            changed |= self._directory.apply_one(entry)
        if changed:
            await self._judge_again()
        self._take_aside(page)
        return changed

    async def _unlist_slowly(self, listed: Collection[str]) -> bool:
        """Mark members that a complete list lacks. Other tasks of the loop run between them."""
        changed, slices = False, Slices()
        for member_id in self._directory.missing_in(listed):
            await slices.rest()
            changed |= self._directory.unlist(member_id)
        return changed

    async def _judge_again(self) -> None:
        """Look at refused entries again, until that changes nothing."""
        slices, is_news = Slices(), True
        while is_news:
            is_news = False
            for entry in self._directory.refused():
                await slices.rest()
                await self._directory.prove(entry)
                is_news |= self._directory.apply_one(entry)

    def _take(self, page: PeerList) -> bool:
        has_left = self._directory.gone(page.gone)
        changed = self._directory.apply(page.items)
        if has_left and not changed:
            self._directory.apply(self._directory.refused())
        self._take_aside(page)
        return has_left or changed

    def _take_aside(self, page: PeerList) -> None:
        if page.faults:
            self._directory.note_faults()
        for hear in self._page_handlers:
            hear(page)

    def _note(self, version: str | None) -> None:
        self._directory.note_version(version)
        if not self._directory.is_saved:
            self._file.changed()

    def changed(self) -> None:
        """Save a change that came from elsewhere than the list, and tell of it."""
        self._file.changed()
        self._tell(changed=True)

    def close(self) -> None:
        """Save the changes that are not saved yet."""
        if not self._directory.is_saved:
            self._file.changed()
        self._file.close()

    def _tell(self, *, changed: bool) -> None:
        if changed:
            for hear in self._change_handlers:
                hear()
        if news := self._directory.take_news():
            for told in self._news_handlers:
                told(news)
        self._directory.show(self._conditions)

    async def after_miss(self) -> bool:
        """Ask for the list again after a name was not found, and return whether that changed anything.

        Within 2 s of the first start, and 10 s of the first link, the list may still be on its way; the call
        waits for it. A broker that cannot be reached delays no caller. Misses cause at most one request a
        second.
        """
        if not self._synced.is_set():
            try:
                async with asyncio.timeout(self._first_list_by - self._clock.monotonic()):
                    await self._synced.wait()
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
        """Apply an event about members. When it does not fit the known version, ask the broker."""
        if isinstance(news, PeerList):
            self._on_change(news)
        elif isinstance(news, MemberEvent):
            if news.statement is not None and self._directory.revoke(news.statement):
                self.changed()
            is_unknown = self._directory.by_id(news.member_id) is None
            # A list with versions brings renames and revocations by itself.
            if news.event in _CHANGES or is_unknown or self._is_plain:
                self.soon()

    def _on_change(self, change: PeerList) -> None:
        if change.since is None:
            if not self._is_later:
                self._is_later = True
                self._tasks.start(self._later(), "directory")
        elif self._asking.locked():
            # An answer that is on its way may be older than this event.
            self.soon()
        elif change.since == self._directory.version:
            judged = (*change.items, *self._directory.refused())
            if sum(1 + len(entry.rotations) for entry in judged) > _AT_ONCE:
                self._tasks.start(self._take_change(change), "directory")
                return
            changed = self._take(change)
            self._note(change.version)
            self._tell(changed=changed)
        elif version_number(change.version) > version_number(self._directory.version):
            self.soon()

    async def _take_change(self, change: PeerList) -> None:
        async with self._asking:
            if change.since != self._directory.version:
                self.soon()
                return
            changed = await self._take_slowly(change)
            self._note(change.version)
        self._tell(changed=changed)

    async def _later(self) -> None:
        await asyncio.sleep(random.uniform(0, self._spread_s))
        self._is_later = False
        self.soon()

    def soon(self) -> None:
        """Ask in the background. Calls during a request cause one more request in all."""
        if not self._synced.is_set():
            self._first_list_by = self._clock.monotonic() + _LINKED_LIST_S
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
