"""The inbox of a session of Qwen Code: a socket that takes a message for its model.

The token of the variables stands for a process that the session has started, whose messages are taken in
every mode. No hook is called with the text, so a push is a notice, and `mesh_inbox` alone shows a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from claudemesh.cli.mcp.doors import Outcome, write_lines

_VERSION: Final = 1


class QwenInbox(NamedTuple):
    """The path of the socket and the token of its client."""

    path: str
    token: str
    proves_texts: bool = False

    def is_open(self) -> bool:
        """Whether the client can take a text now: it can from the start."""
        return True

    def write(self, text: str) -> Outcome:
        """Give a text to the client. `gone`: no client of this user listens any more."""
        # Imported here: other clients have no such inbox.
        import uuid

        frame = {
            "msgV": _VERSION,
            "msgId": str(uuid.uuid4()),
            "type": "user",
            "fromName": "claudemesh",
            "priority": "next",
            "message": {"role": "user", "content": text},
        }
        return write_lines(self.path, [{"msgV": _VERSION, "type": "auth", "token": self.token}, frame])


def qwen_inbox(environment: Mapping[str, str]) -> QwenInbox | None:
    """Return the inbox of the client that has started this process, None without one."""
    path, token = (environment.get(f"QWEN_CODE_MESSAGING_{name}") for name in ("SOCKET", "TOKEN"))
    return QwenInbox(path, token) if path and token else None
