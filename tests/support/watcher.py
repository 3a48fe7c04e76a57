"""A member that believes what the broker tells of presence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.waiting import WAIT_S
from tests.support.wspeer import Link, Peer


@dataclass
class Watcher:
    """Keeps the set of members that are online, by the events alone."""

    link: Link
    online: set[str] = field(default_factory=set)
    events: list[dict[str, Any]] = field(default_factory=list)

    async def hear(self) -> dict[str, Any]:
        """Take the next event over."""
        event = await self.link.event("presence")
        self.events.append(event)
        if event["whole"]:
            self.online.clear()
        self.online |= set(event["online"])
        self.online -= set(event["offline"])
        return event

    async def until(self, condition: Callable[[set[str]], bool]) -> None:
        """Hear until what is believed is so."""
        async with asyncio.timeout(WAIT_S):
            while not condition(self.online):
                await self.hear()

    async def sees(self, *peers: Peer) -> None:
        """Hear until exactly these are online."""
        expected = {peer.member_id for peer in peers}
        await self.until(lambda online: online == expected)


@asynccontextmanager
async def watching(peer: Peer, **options: Any) -> AsyncGenerator[Watcher]:
    """Connect, and hear who is online."""
    async with peer.connect(optional=["presence"], **options) as link:
        watcher = Watcher(link)
        async with asyncio.timeout(WAIT_S):
            first = await watcher.hear()
        assert first["whole"], first
        yield watcher
