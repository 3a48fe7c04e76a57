"""Online members, by what the broker tells, and when those that went were seen last.

A broker that offers the feature `presence` says at link-up who is online, and from then on what has changed.
Another one says so with each list of members, and tells of single members in between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

from claudemesh.daemon.bus import BusEvent
from claudemesh.daemon.identity.directory import Directory, Peer
from claudemesh.daemon.identity.sync import DirectorySync
from claudemesh.protocol.events import MAX_PRESENT, News, PresenceEvent
from claudemesh.protocol.replies import PeerList
from claudemesh.runtime.logs import get_logger

log = get_logger("presence")

# A broker tells a newcomer who is online two seconds after its link opened, in a mesh of 2,000 members.
_FIRST_WORD_S = 3.0
# So many changes at once are published one by one; of more only the numbers.
_PUBLISHED = 100


class Presence:
    """Members that are online. Without a link none is known to be."""

    def __init__(
        self,
        own_id: str,
        directory: Directory,
        sync: DirectorySync,
        publish: Callable[[Sequence[BusEvent]], None],
    ) -> None:
        self._own_id = own_id
        self._directory = directory
        self._sync = sync
        self._publish = publish
        self._is_linked = False
        self._is_told = False
        # Set unless a broker that tells who is online has yet to say it on this link.
        self._is_known = asyncio.Event()
        self._is_known.set()
        self._online: set[str] = set()
        self._seen: dict[str, int] = {}
        # Changes of members whose name is not known yet.
        self._unnamed: dict[str, bool] = {}
        sync.on_page(self._listed)
        sync.on_change(self._directory_changed)

    def is_online(self, member_id: str) -> bool:
        """Whether a member is online. This one is, while the link is up."""
        return self._is_linked if member_id == self._own_id else member_id in self._online

    def last_seen_ms(self, peer: Peer) -> int | None:
        """Return when a member that is offline was seen last, by the broker's time of day.

        Nothing is said of a member that does not want to be seen: when it hid itself is not when it went.
        """
        if not peer.visible:
            return None
        seen = self._seen.get(peer.member_id, 0)
        return max(seen, peer.last_seen_at or 0) or None

    async def known(self) -> None:
        """Wait for the first presence event of a new link, at most 3 s. Before it no member is online."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_WORD_S):
                await self._is_known.wait()

    def link_up(self, *, told: bool) -> None:
        """A link is open; `told`: the broker tells who is online, which the list need not say then."""
        self._is_linked, self._is_told = True, told
        if told:
            self._is_known.clear()
        self._sync.link_up(asks_online=not told)

    def link_down(self) -> None:
        """Nothing is known any more."""
        self._is_linked = False
        self._is_known.set()
        self._online.clear()
        self._unnamed.clear()

    def on_event(self, news: News) -> None:
        """Take over what an event says about presence."""
        if isinstance(news, PresenceEvent) and not (news.is_single and self._is_told):
            self._take(news)

    def _listed(self, page: PeerList) -> None:
        """Take a list's word for who is online, unless the broker tells it by itself."""
        if self._is_linked and not self._is_told:
            self._online.update(entry.member_id for entry in page.items if entry.online)
            self._online.update(page.online)

    def _directory_changed(self) -> None:
        """Publish what waited for a name."""
        waiting, self._unnamed = self._unnamed, {}
        self._announce(waiting)

    def _take(self, news: PresenceEvent) -> None:
        if news.is_whole:
            self._online.clear()
            self._is_known.set()
        if len(self._online) + len(news.online) > MAX_PRESENT:
            log.warning("presence_not_believed", online=len(self._online) + len(news.online))
            return
        changed = {member_id: True for member_id in news.online if member_id not in self._online}
        changed |= {member_id: False for member_id in news.offline if member_id in self._online}
        self._online.update(news.online)
        self._online.difference_update(news.offline)
        if news.at_ms is not None:
            self._seen.update(
                (member_id, news.at_ms)
                for member_id in news.offline
                if self._directory.by_id(member_id) is not None
            )
        if any(self._directory.by_id(member_id) is None for member_id in news.online):
            self._sync.soon()
        if not news.is_whole:
            self._announce(changed)

    def _announce(self, changed: Mapping[str, bool]) -> None:
        """Publish changes, each with the member's name; of very many at once only the numbers."""
        changed = {member_id: online for member_id, online in changed.items() if member_id != self._own_id}
        if len(changed) > _PUBLISHED:
            came = sum(changed.values())
            self._publish([BusEvent("peers_changed", {"online": came, "offline": len(changed) - came})])
            return
        events = []
        for member_id, online in changed.items():
            peer = self._directory.by_id(member_id)
            if peer is None:
                self._unnamed[member_id] = online
                continue
            card = {"name": peer.name, "member_id": member_id, "pubkey": peer.pubkey}
            events.append(BusEvent("peer_join" if online else "peer_leave", card))
        self._publish(events)
