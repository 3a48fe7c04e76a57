"""Upkeep of topic keys: the age of epochs, their sweep, and epochs that are still wanted."""

from __future__ import annotations

from typing import Final

from claudemesh.broker.key_news import KeyNews
from claudemesh.broker.store.protocol import Store
from claudemesh.protocol.topic_keys import DEFAULT_KEY_EPOCHS
from claudemesh.runtime.lived import LivedClock

_DAY_MS: Final = 86_400_000


class KeyUpkeep:
    """Marks topics whose key is older than `max_age_days` of lived time, sweeps, and asks holders again."""

    def __init__(self, store: Store, news: KeyNews, lived: LivedClock, max_age_days: int) -> None:
        self.news = news
        self._store = store
        self._lived = lived
        self._max_age_ms = max_age_days * _DAY_MS

    async def run(self) -> int:
        """Do all of it; returns how many topics were marked and epochs swept."""
        keys, now_ms = self._store.topic_keys, self._lived.now_ms()
        count = 0
        while marked := await keys.want_old(now_ms - self._max_age_ms):
            count += marked
        # An epoch of the last day counts for the number of epochs that its maker has made.
        while swept := await keys.sweep(DEFAULT_KEY_EPOCHS, now_ms - _DAY_MS):
            count += swept
        for mesh in await self._store.meshes.all():
            self.news.want_epochs(mesh.id, await keys.wanted(mesh.id))
        return count
