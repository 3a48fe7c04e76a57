"""The socket of Claude Code at which a child of the client gives it a line of text.

A line that the client's own child writes is shown in every permission mode. The client never answers, drops
lines beyond about thirty at once and a line that repeats the one before, and closes at a line of more than
1 MiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from claudemesh.cli.mcp.doors import Outcome, write_lines


class ClaudeSocket(NamedTuple):
    """The path of the socket and the token of its client."""

    path: str
    token: str | None
    proves_texts: bool = True

    def is_open(self) -> bool:
        """Whether the client can take a text now: it can from the start."""
        return True

    def write(self, text: str) -> Outcome:
        """Give a text to the client. `gone`: no client of this user listens any more."""
        lines: list[object] = [] if self.token is None else [{"type": "auth", "token": self.token}]
        return write_lines(
            self.path, [*lines, {"type": "user", "message": {"role": "user", "content": text}}]
        )


def claude_socket(environment: Mapping[str, str]) -> ClaudeSocket | None:
    """Return the socket of the client that has started this process, None without one."""
    path = environment.get("CLAUDE_CODE_MESSAGING_SOCKET")
    if not path:
        return None
    return ClaudeSocket(path, environment.get("CLAUDE_CODE_MESSAGING_TOKEN") or None)
