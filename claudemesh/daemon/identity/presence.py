"""Presence: the members that are online, and when the others were last seen, as the broker reports it.

A broker with the feature `presence` sends the online members when the link opens, and then each change. A
broker without it puts them into each list of members, and sends events about single members in between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from msgspec.structs import replace

from claudemesh.daemon.bus import BusEvent
from claudemesh.daemon.calls import Ask
from claudemesh.daemon.identity.changes import member_event
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.peer import Peer
from claudemesh.daemon.identity.sync import DirectorySync
from claudemesh.protocol import replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.events import MAX_PRESENT, PresenceEvent
from claudemesh.protocol.replies import MEMBERS_SEEN, PeerList
from claudemesh.runtime.aside import Slices
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner
from claudemesh.runtime.sparse import SparseLog

log = SparseLog(get_logger("presence"))

# In a mesh of 2,000 members a broker sends the online members two seconds after the link has opened.
_FIRST_WORD_S = 3.0
# The longest wait for the times at which members were seen last, before those that are known are shown.
_SEEN_S = 1.0
# Up to this many simultaneous changes are published one by one. Of more only the numbers are published.
_PUBLISHED = 100
# Members whose presence is applied without a pause.
_PART = 512


class Presence:
    """The online members. Without a link no member counts as online."""

    def __init__(
        self,
        own_id: str,
        directory: Directory,
        sync: DirectorySync,
        publish: Callable[[Sequence[BusEvent]], None],
        clock: Clock,
        ask: Ask,
        tasks: TaskOwner,
        seen_wait_s: float = _SEEN_S,
    ) -> None:
        """`seen_wait_s` is the longest wait for the times at which members were seen last."""
        self._own_id = own_id
        self._directory = directory
        self._sync = sync
        self._publish = publish
        self._clock = clock
        self._ask = ask
        self._tasks = tasks
        self._seen_wait_s = seen_wait_s
        self._is_linked = False
        self._is_told = False
        # Set when the online members are known, or when the broker does not send them by itself.
        self._is_known = asyncio.Event()
        self._is_known.set()
        self._online: set[str] = set()
        self._seen: dict[str, int] = {}
        # Members whose last time the broker was asked for since the link has opened.
        self._asked: set[str] = set()
        # Members that came online and whose names are not known yet.
        self._unnamed: dict[str, bool] = {}
        sync.on_page(self._listed)
        sync.on_change(self._directory_changed)

    def is_online(self, member_id: str) -> bool:
        """Whether a member is online. This member is online while the link is open."""
        return self._is_linked if member_id == self._own_id else member_id in self._online

    def last_seen_ms(self, peer: Peer) -> int | None:
        """Return when a member was last seen, in Unix milliseconds of the broker's clock, or None.

        One that is online is seen now, one that was online when the link was lost was seen then, by this
        host's clock.
        A member that hides its presence has no such time: the moment when it hid is not when it left.
        """
        if self.is_online(peer.member_id):
            return self._clock.wall_ms()
        if not peer.visible:
            return None
        seen = self._seen.get(peer.member_id, 0)
        return max(seen, peer.last_seen_at or 0) or None

    async def known(self) -> None:
        """Wait for the first presence event of a new link, at most 3 s. Before it no member is online."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_WORD_S):
                await self._is_known.wait()

    async def learn_seen(self, peers: Sequence[Peer]) -> None:
        """Ask when offline members were seen last, and wait for it at most a second, once for each on a link.

        They may have come and gone while this host was away, and the list of members does not tell of that.
        A later answer is taken when it comes. Without one they are asked for again.
        """
        wanted = [one.member_id for one in peers if self._may_have_gone(one)][:MEMBERS_SEEN]
        if not wanted or not self._is_linked:
            return
        self._asked.update(wanted)
        # It ends with the link.
        asking = self._tasks.start(self._learn(wanted), "members_seen")
        await asyncio.wait([asking], timeout=self._seen_wait_s)

    async def _learn(self, wanted: Sequence[str]) -> None:
        try:
            seen = await self._ask("members_seen", {"member_ids": wanted}, replies.members_seen)
        except ProtocolError as error:
            log.info("members_seen_not_learnt", error=error.code)
            # An older broker has no such call, and is not asked again.
            if error.code == "broker_unavailable":
                self._asked.difference_update(wanted)
            return
        for member_id in wanted:
            if seen.get(member_id, 0) > self._seen.get(member_id, 0):
                self._seen[member_id] = seen[member_id]

    def _may_have_gone(self, peer: Peer) -> bool:
        return peer.visible and peer.member_id not in self._asked and not self.is_online(peer.member_id)

    def link_up(self, *, told: bool) -> None:
        """Note an open link. `told`: the broker sends the online members apart from the member list."""
        self._is_linked, self._is_told = True, told
        self._asked.clear()
        if told:
            self._is_known.clear()
        self._sync.link_up(asks_online=not told)

    def link_down(self) -> None:
        """Note the loss of the link: no member counts as online. Those that did were seen until now."""
        self._is_linked = False
        self._seen.update(dict.fromkeys(self._online, self._clock.wall_ms()))
        self._is_known.set()
        self._online.clear()
        self._unnamed.clear()

    def keep_seen(self) -> None:
        """Put the times at which members were seen last into the directory, for the next start."""
        self.link_down()
        for member_id, seen_ms in self._seen.items():
            peer = self._directory.by_id(member_id)
            if peer is not None and seen_ms > (peer.last_seen_at or 0):
                self._directory.note_seen(replace(peer, last_seen_at=seen_ms))

    async def take(self, news: PresenceEvent) -> None:
        """Apply a presence event of the broker. Other tasks of the loop run between parts of a large one."""
        if news.is_single and self._is_told:
            return
        online: set[str] = set() if news.is_whole else self._online
        if self._is_believed(len(online) + len(news.online)):
            changed = await self._applied(news, online)
        else:
            changed = {}
        self._online = online
        if news.is_whole:
            self._unnamed = {one: True for one in self._unnamed if one in online}
            self._is_known.set()
        elif changed:
            self._announce(changed)

    async def _applied(self, news: PresenceEvent, online: set[str]) -> dict[str, bool]:
        """Change the online members, and return those that came (True) and went (False)."""
        changed: dict[str, bool] = {}
        is_unknown = False
        async for part in _parts(news.online):
            for member_id in part:
                if member_id not in online:
                    online.add(member_id)
                    changed[member_id] = True
                is_unknown |= self._directory.by_id(member_id) is None
        async for part in _parts(news.offline):
            for member_id in part:
                if member_id in online:
                    online.discard(member_id)
                    if not changed.pop(member_id, False):
                        changed[member_id] = False
                if news.at_ms is not None and self._directory.by_id(member_id) is not None:
                    self._seen[member_id] = news.at_ms
        if is_unknown:
            self._sync.soon()
        return changed

    def _listed(self, page: PeerList) -> None:
        """Take the online members from a list, unless the broker sends them by itself."""
        if self._is_linked and not self._is_told:
            online = {entry.member_id for entry in page.items if entry.online}.union(page.online)
            if self._is_believed(len(self._online) + len(online)):
                self._online.update(online)

    def _directory_changed(self) -> None:
        """Publish changes of members whose names have become known."""
        waiting, self._unnamed = self._unnamed, {}
        self._announce(waiting)

    def _is_believed(self, online: int) -> bool:
        if online > MAX_PRESENT:
            log.warning("presence_not_believed", online=online)
        return online <= MAX_PRESENT

    def _announce(self, changed: dict[str, bool]) -> None:
        """Publish changes, each with the member's name, or of very many at once only the numbers."""
        # A copy of very many would hold the loop.
        changed.pop(self._own_id, None)
        if len(changed) > _PUBLISHED:
            came = sum(changed.values())
            self._publish([BusEvent("peers_changed", {"online": came, "offline": len(changed) - came})])
            return
        events = []
        for member_id, online in changed.items():
            peer = self._directory.by_id(member_id)
            if peer is None:
                # One that came and went before its name was known is not told of.
                if self._unnamed.pop(member_id, None) is None and online:
                    self._unnamed[member_id] = True
                continue
            card = {"name": peer.name, "member_id": member_id, "pubkey": peer.pubkey}
            events.append(member_event("peer_join" if online else "peer_leave", card))
        self._publish(events)


async def _parts(member_ids: Sequence[str]) -> AsyncGenerator[Sequence[str]]:
    """Return a long list in parts. Other tasks of the loop run between them."""
    slices = Slices()
    for start in range(0, len(member_ids), _PART):
        await slices.rest()
        yield member_ids[start : start + _PART]
