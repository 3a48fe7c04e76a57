"""A cache of pages of whole member lists: after a restore or an upgrade every daemon asks for the whole list.

A page is read and encoded once while the list has one version. At most 256 pages are kept, and none for
longer than a minute.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import orjson
from msgspec import Struct

from claudemesh.broker.directory.cards import read_cards
from claudemesh.broker.settings import Limits
from claudemesh.broker.store.facets import DirectoryStore
from claudemesh.broker.store.types import Version

_MOST = 256
_KEPT_S = 60.0


class WholePage(Struct, frozen=True):
    """The answer to `peers` for one page; `hidden` are members whose own entry would show more."""

    answer: Mapping[str, Any]
    hidden: frozenset[str]


class WholePages:
    """Pages without presence, by mesh and place."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._kept: OrderedDict[tuple[str, int], tuple[Version | None, WholePage]] = OrderedDict()
        self._reading = asyncio.Lock()
        self._forgetting: asyncio.TimerHandle | None = None

    async def get(self, store: DirectoryStore, mesh_id: str, after: int) -> WholePage:
        """Return the page that begins at a place. Raises `StorageError`."""
        newest = await store.version(mesh_id)
        if (found := self._find(mesh_id, after, newest)) is not None:
            return found
        async with self._reading:
            # A caller that waited finds the page that the first one has read.
            if (found := self._find(mesh_id, after, newest)) is not None:
                return found
            cards = await read_cards(store, mesh_id, None, self._limits, after=after)
        items = orjson.Fragment(orjson.dumps(list(cards.items)))
        answer = {**cards.fields(), "items": items, "next": cards.page.next, "whole": True}
        made = WholePage(answer, frozenset(one.id for one in cards.page.members if not one.visible))
        self._keep((mesh_id, after), newest, made)
        return made

    def _find(self, mesh_id: str, after: int, newest: Version | None) -> WholePage | None:
        version, page = self._kept.get((mesh_id, after), (None, None))
        return page if version == newest else None

    def _keep(self, place: tuple[str, int], version: Version | None, page: WholePage) -> None:
        self._kept[place] = version, page
        self._kept.move_to_end(place)
        if len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        if self._forgetting is None:
            self._forgetting = asyncio.get_running_loop().call_later(_KEPT_S, self._forget)

    def _forget(self) -> None:
        self._forgetting = None
        self._kept.clear()
