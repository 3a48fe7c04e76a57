"""A person at a terminal as a session: messages that a terminal shows are shown."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from claudemesh.cli.display import is_terminal
from claudemesh.client.errors import ApiError, DaemonNotRunning, Unsupported
from claudemesh.client.local import LocalClient

_CLIENT = "terminal"
_MOST_IDS = 500
# The session registers again behind this time, before its lease of 90 s has ended.
_RENEWED_S = 60.0


class TerminalSession:
    """The session of this command. It registers when it has shown the first message, and ends with the
    process. Output that goes elsewhere than to a terminal is not seen by a person: nothing is marked."""

    def __init__(self, client: LocalClient) -> None:
        self._client = client
        self._is_terminal = is_terminal()
        self._name = ""
        self._renewed_at = -_RENEWED_S

    def saw(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Mark messages as shown. Those of another session wait for that one."""
        ids = [item["id"] for item in items if _is_news(item)]
        if not ids or not self._is_terminal:
            return
        try:
            for start in range(0, len(ids), _MOST_IDS):
                body = {"ids": ids[start : start + _MOST_IDS], "as": "shown", "session": self._own_name()}
                self._client.post("/v1/inbox/ack", body)
        except (ApiError, DaemonNotRunning, Unsupported):
            # The messages stay as they are, and are marked when they are shown again.
            return

    def _own_name(self) -> str:
        if time.monotonic() - self._renewed_at >= _RENEWED_S:
            about = {"client": _CLIENT, "name": _CLIENT, "reach": "pull", "pid": os.getpid()}
            found = self._client.post("/v1/sessions", about)
            # Messages for the host are given to the sessions of agents.
            self._client.post(f"/v1/sessions/{found['session_id']}/heartbeat", {"state": "away"})
            self._name = str(found["name"])
            self._renewed_at = time.monotonic()
        return self._name


def _is_news(item: Mapping[str, Any]) -> bool:
    """Whether a message is for the host, and was shown to no session yet."""
    return (
        item["body"] is not None
        and item["shown_at"] is None
        and item.get("to_session") is None
        and item.get("for_session") is None
    )
