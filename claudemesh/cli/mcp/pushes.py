"""Pushes into a client: the daemon says when one is due, this process makes it, and a hook proves it.

A push is a line of this host, with the text of a message only where that is short and its sender may wake the
session. The client says nothing about a push. Its hook for prompts is called with the pushed text when the
text goes to the model: that is the proof. A client drops a line that repeats the one before, so no two pushes
are the same.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from claudemesh.cli.mcp.doors import MOST_BYTES, Door
from claudemesh.cli.mcp.framing import framed
from claudemesh.cli.mcp.marks import Mark, Marks
from claudemesh.cli.mcp.news import counted
from claudemesh.cli.mcp.session import McpSession
from claudemesh.client.errors import ApiError, ClientError

_WAIT_MS: Final = 20_000
_PAUSE_S: Final = 2.0
_SETTLED_S: Final = 1.0
_KEPT: Final = 32
_MOST_FAILURES: Final = 3
_MOST_SENDERS: Final = 5


class Written(NamedTuple):
    """A push that was made."""

    text: str
    ids: Sequence[str]
    mark: Mark
    # The message of a text, None for a pointer.
    message: Mapping[str, Any] | None = None
    # The seq of the newest message, when the ids are not all that wait.
    through: int = 0


class Pushes:
    """The pushes of this process that are not proven. Every method may be called by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._written: deque[Written] = deque(maxlen=_KEPT)
        self._texts: deque[str] = deque(maxlen=_KEPT)

    def note(self, written: Written) -> Written:
        """Note a push before it is made: its proof may come at once.

        Return it with a text that no earlier one has.
        """
        with self._lock:
            earlier = self._texts.count(written.text)
            self._texts.append(written.text)
            made = written._replace(text=_repeated(written.text, earlier))
            self._written.append(made)
        return made

    def proven(self, prompt: str) -> list[Written]:
        """Return the pushes whose whole text stands in a prompt, once."""
        with self._lock:
            found = [one for one in self._written if one.text in prompt]
            for one in found:
                self._written.remove(one)
        return found


def _repeated(text: str, earlier: int) -> str:
    return text if earlier == 0 else f"(repeated, {earlier}) {text}"


def push_all(session: McpSession, door: Door, pushes: Pushes, marks: Marks, ended: threading.Event) -> None:
    """Make the pushes of a session until it ends. One that its client takes no more is reached at its turns.

    A daemon that is down, and a host without a mesh, are asked again later.
    """
    # A client that has just read the list of tools does not call them as hooks yet: a push had no proof.
    ended.wait(_SETTLED_S)
    while not door.is_open():
        if ended.wait(_PAUSE_S):
            return
    session.reaches("push")
    failures = 0
    while not ended.is_set() and failures < _MOST_FAILURES:
        try:
            # A message whose proof the daemon does not have yet would be pushed again.
            marks.settle()
            due = session.client().post(f"/v1/sessions/{session.id}/push?wait_ms={_WAIT_MS}", {})
        except ApiError as error:
            if error.code == "session_not_found":
                session.forget()
            ended.wait(_PAUSE_S)
            continue
        except ClientError:
            ended.wait(_PAUSE_S)
            continue
        written = written_for(due, proves_texts=door.proves_texts)
        if written is None:
            continue
        outcome = door.write(pushes.note(written).text)
        failures = 0 if outcome == "written" else failures + 1
        if outcome == "gone":
            break
    if not ended.is_set():
        session.describe(reach="turn")
        session.renew()


def written_for(due: Mapping[str, Any], *, proves_texts: bool = True) -> Written | None:
    """Return the push that is due, as text; None for none.

    A client that cannot prove that its model has a text is given a notice.
    """
    if due["form"] == "none":
        return None
    message = due["message"]
    if message is not None and proves_texts:
        how = f"Answer with mesh_send and reply_to {message['id']}, or acknowledge with mesh_ack."
        text = f"{framed(message)}\n{how}"
        if len(text.encode()) <= MOST_BYTES:
            return Written(text, due["ids"], "shown", message)
    return Written(_pointer(due), due["ids"], "notified", through=due["through"])


def _named(due: Mapping[str, Any]) -> str:
    # Of many messages the ids are the oldest ones.
    return f"The newest is {due['ids'][-1]}." if not due["through"] else f"One of them is {due['ids'][-1]}."


def _pointer(due: Mapping[str, Any]) -> str:
    senders, waits = due["senders"], counted(due["count"], more=due["more"])
    names = ", ".join(senders[:_MOST_SENDERS]) + (" and others" if len(senders) > _MOST_SENDERS else "")
    return (
        f"claudemesh: {waits} for this session, from {names}. {_named(due)} "
        "Read with mesh_inbox, answer with mesh_send."
    )
