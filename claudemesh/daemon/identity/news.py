"""News of members: changes of the directory, as events of this daemon and for its hooks.

A change of a profile is told at most once a second for each member, and the last one is always told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from claudemesh.daemon.bus import BusEvent
from claudemesh.daemon.identity.changes import UPDATED, MemberChange, member_event, profile_of
from claudemesh.daemon.identity.directory import Directory

_EVERY_S: Final = 1.0
# Members whose profile changed within the last second. Changes of further ones are told at once.
_MOST: Final = 10_000


class MemberNews:
    """Publishes the changes of members."""

    def __init__(
        self,
        directory: Directory,
        publish: Callable[[Sequence[BusEvent]], None],
        tell_hooks: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        """`tell_hooks` gets the name of a hook, `on-` and the event with dashes, and the data."""
        self._directory = directory
        self._publish = publish
        self._tell_hooks = tell_hooks
        # Members that were told of within the last second, and whether they have changed since.
        self._told: dict[str, bool] = {}

    def on_news(self, changes: Sequence[MemberChange]) -> None:
        """Publish changes, or note them for later."""
        for change in changes:
            if change.event != UPDATED:
                self._send(change.event, change.data)
                continue
            member_id = str(change.data["member_id"])
            if member_id in self._told:
                self._told[member_id] = True
            else:
                self._send_profile(member_id, change.data)

    def _send_profile(self, member_id: str, data: Mapping[str, Any]) -> None:
        if len(self._told) < _MOST:
            self._told[member_id] = False
            asyncio.get_running_loop().call_later(_EVERY_S, self._again, member_id)
        self._send(UPDATED, data)

    def _again(self, member_id: str) -> None:
        has_changed = self._told.pop(member_id, False)
        peer = self._directory.by_id(member_id)
        if has_changed and peer is not None:
            self._send_profile(member_id, profile_of(peer))

    def _send(self, event: str, data: Mapping[str, Any]) -> None:
        told = member_event(event, data)
        self._publish([told])
        self._tell_hooks(f"on-{event.replace('_', '-')}", told.data)
