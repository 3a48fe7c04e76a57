"""The queue of a session of Codex, filled by the client's own command.

A queued text begins a turn of an idle session, and waits on the disk for one whose client has ended: so one
is queued only while the client lives. Other users can see the text among the arguments of the process: a push
is a notice, and never holds the text of a message.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from claudemesh.cli.mcp.doors import Outcome
from claudemesh.cli.mcp.jsonlines import parsed
from claudemesh.cli.mcp.session import McpSession
from claudemesh.client.errors import ClientError

_LIMIT_S: Final = 60
_NAME: Final = "codex"
_META: Final = "x-codex-turn-metadata"
# Commands whose turn no person sees: a text in their queue would run later, unattended.
_UNATTENDED: Final = frozenset({"exec", "e", "review", "mcp-server", "app-server"})


class CodexQueue(NamedTuple):
    """The program of the client, and the session whose thread is its queue."""

    program: str
    session: McpSession
    parent: int
    proves_texts: bool = False

    def is_open(self) -> bool:
        """Whether the thread is known: a hook tells it at the first prompt, or a call of a tool."""
        return self._thread() is not None

    def write(self, text: str) -> Outcome:
        """Queue a text. `gone`: the client has ended, and a text would wait for another one."""
        thread = self._thread()
        if os.getppid() != self.parent:
            return "gone"
        if thread is None:
            return "failed"
        # Imported here: other clients have no such queue.
        import subprocess

        command = [self.program, "queue", "--thread", thread, "--message", text]
        try:
            ran = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT_S, check=False
            )
        except (OSError, subprocess.SubprocessError):
            return "failed"
        return "written" if ran.returncode == 0 else "failed"

    def _thread(self) -> str | None:
        try:
            return self.session.learn()
        except ClientError:
            return None


def codex_queue(session: McpSession, parent: int) -> CodexQueue | None:
    """Return the queue of the client that has started this process, None when it is another client."""
    if not session.client_name.startswith(_NAME) or _UNATTENDED & set(_arguments(parent)):
        return None
    program = _program(parent)
    return None if program is None else CodexQueue(program, session, parent)


def thread_of(message: Any) -> str | None:
    """Return the thread that a call of Codex names."""
    params = message.get("params") if isinstance(message, dict) else None
    meta = params.get("_meta") if isinstance(params, dict) else None
    found = meta.get(_META) if isinstance(meta, dict) else None
    if isinstance(found, str):
        try:
            found = parsed(found.encode())
        except ValueError:
            return None
    thread = found.get("thread_id") if isinstance(found, Mapping) else None
    return thread if isinstance(thread, str) else None


def _program(parent: int) -> str | None:
    """Return the program of the client: that of the process if it can be seen, else the installed one."""
    try:
        own = os.readlink(f"/proc/{parent}/exe")  # noqa: PTH115
    except OSError:
        own = ""
    # The link of a program that was updated since ends with " (deleted)".
    if os.path.basename(own).startswith(_NAME) and os.path.exists(own):  # noqa: PTH119, PTH110
        return own
    # Imported here: other clients are no such program.
    import shutil

    return shutil.which(_NAME)


def _arguments(pid: int) -> Sequence[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
            return file.read().decode(errors="replace").split("\0")[1:]
    except OSError:
        return ()
