"""A hook that waits for a message: it wakes an idle session of a client without a socket for messages.

The client runs it in the background behind a turn, and begins another turn when it ends with a code of its
own. It waits once for a session, and only where a person is at the client: a client without a terminal would
not end before it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from claudemesh.cli.mcp.pushes import written_for
from claudemesh.client.errors import ClientError
from claudemesh.client.local import LocalClient
from claudemesh.runtime.files import FileLock

_WAIT_MS: Final = 5000
_PAUSE_S: Final = 2.0


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the client has a person and no socket for messages.

    2.1.197 has no variable that says so, and names its entry point.
    """
    attended = environment.get("CLAUDE_CODE_SESSION_ATTENDED")
    is_attended = environment.get("CLAUDE_CODE_ENTRYPOINT") == "cli" if attended is None else attended == "1"
    return is_attended and not environment.get("CLAUDE_CODE_MESSAGING_SOCKET")


def wait(client: LocalClient, session: Mapping[str, Any], folder: Path) -> str | None:
    """Wait for a push to a session, and return its text.

    None when the client or the session has ended, or when another hook waits.
    """
    parent = os.getppid()
    lock = FileLock(folder / f"wait-{session['session_id']}.lock")
    if not lock.acquire():
        return None
    try:
        _can_be_woken(client, session)
        while os.getppid() == parent:
            try:
                due = client.post(f"/v1/sessions/{session['session_id']}/push?wait_ms={_WAIT_MS}", {})
                if due["reason"] == "reach":
                    _can_be_woken_again(client, session["session_id"])
                    continue
            except ClientError as error:
                if error.code == "session_not_found":
                    return None
                # The daemon may be restarted.
                time.sleep(_PAUSE_S)
                continue
            written = written_for(due, proves_texts=False)
            if written is not None:
                return written.text
        return None
    finally:
        lock.path.unlink(missing_ok=True)
        lock.release()


def _can_be_woken(client: LocalClient, session: Mapping[str, Any]) -> None:
    about = {name: session[name] for name in ("client", "client_version", "cwd", "pid")}
    about |= {"session_id": session["client_session_id"], "reach": "push"}
    client.post("/v1/sessions", {name: value for name, value in about.items() if value})


def _can_be_woken_again(client: LocalClient, session_id: str) -> None:
    """Behind `/clear`: the server of the session has registered it with its new id, and its own reach."""
    for one in client.items("/v1/sessions"):
        if one["session_id"] == session_id:
            _can_be_woken(client, one)
