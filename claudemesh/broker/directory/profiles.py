"""Changes of members' profiles: at most one a second for each member, and the last one wins.

Each change is told to the whole mesh. A change within a second of the last one waits, and changes that wait
share one write. A change is answered when it, or one that replaces it, is in the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from claudemesh.broker.directory.feed import Feed
from claudemesh.broker.environment import Environment
from claudemesh.broker.presence.announcer import Announcer
from claudemesh.broker.store.facets import MemberStore
from claudemesh.runtime.paced import Paced
from claudemesh.runtime.services import TaskOwner

# Members whose last change is kept in mind, before those that are idle are forgotten.
_SWEPT_ABOVE = 1024


class Profiles:
    """Writes and announces changes of profiles."""

    def __init__(self, store: MemberStore, feed: Feed, announcer: Announcer, env: Environment) -> None:
        self._store = store
        self._feed = feed
        self._announcer = announcer
        self._every_s = env.limits.profile_s
        self._tasks = TaskOwner(env.on_crash)
        self._members: dict[tuple[str, str], Paced] = {}

    async def stop(self) -> None:
        """Drop the changes that wait. They were not answered."""
        await self._tasks.stop()

    async def set(self, mesh_id: str, member_id: str, given: Mapping[str, Any]) -> None:
        """Change the given parts of a profile, named as in `set_profile`. Raise the error of the store."""
        key = (mesh_id, member_id)
        paced = self._members.get(key)
        if paced is None:
            self._forget_idle()
            write = partial(self._write, mesh_id, member_id)
            paced = self._members[key] = Paced(write, self._tasks, self._every_s)
        await paced.set(given)

    async def _write(self, mesh_id: str, member_id: str, given: Mapping[str, Any]) -> None:
        await self._store.set_profile(mesh_id, member_id, **given)
        self._feed.publish(mesh_id)
        if "visible" in given:
            self._announcer.show(mesh_id, member_id, visible=given["visible"])

    def _forget_idle(self) -> None:
        if len(self._members) > _SWEPT_ABOVE:
            self._members = {key: one for key, one in self._members.items() if not one.is_idle}
