"""Changes of this member's own profile: at most one call a second, and the last change wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from claudemesh.daemon.calls import Ask
from claudemesh.protocol import replies
from claudemesh.runtime.paced import Paced
from claudemesh.runtime.services import TaskOwner

_EVERY_S: Final = 1.0


class ProfileUpdates:
    """Sends changes of the profile. Those that come within a second of the last call share the next one."""

    def __init__(self, call: Ask, tasks: TaskOwner) -> None:
        self._call = call
        self._paced = Paced(self._send, tasks, _EVERY_S)

    async def set(self, given: Mapping[str, Any]) -> None:
        """Return when the broker has the change, or one that replaces it. Raise its `ProtocolError`."""
        await self._paced.set(given)

    async def _send(self, given: Mapping[str, Any]) -> None:
        await self._call("profile", given, replies.nothing)
