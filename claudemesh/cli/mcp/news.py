"""News for a session: facts of this host, without any text of another member."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from claudemesh.cli.mcp.tools import INBOX, READS

if TYPE_CHECKING:
    from claudemesh.client.local import LocalClient

_MOST_SENDERS: Final = 10
READ_THEM: Final = f"Read with {INBOX}."


class News(NamedTuple):
    """A text for a session, and the seq of the newest message that it counts. Without one it is empty."""

    text: str = ""
    through: int = 0


def news_for(client: LocalClient, session: str) -> News:
    """Return the news of messages that the session, given by its id, was not told of."""
    found = client.get(f"/v1/sessions/{session}/news")
    if not found["count"]:
        return News()
    count = counted(found["count"], more=found["more"], kind="new mesh message")
    text = f"{count} for you, from {names(found['senders'])}. {READ_THEM}"
    return News(text, found["through"])


def counted(number: int, *, more: bool, kind: str = "message") -> str:
    """Return the number of messages that wait, as the beginning of a sentence."""
    if more:
        return f"{number:,} or more {kind}s wait"
    return f"1 {kind} waits" if number == 1 else f"{number:,} {kind}s wait"


def names(senders: Sequence[str]) -> str:
    """Return the verified names of senders, ten at most."""
    return ", ".join(senders[:_MOST_SENDERS]) + (" and others" if len(senders) > _MOST_SENDERS else "")


def as_context(event: str, text: str) -> str:
    """Return the answer of a hook that adds a text to the context of a model. Silence is an empty answer."""
    if not text:
        return ""
    return json.dumps({"hookSpecificOutput": {"hookEventName": event, "additionalContext": text}})


def allowance(tool: str) -> str:
    """Return the answer of a hook before a tool: a tool of this server that changes nothing runs without a
    question."""
    if not tool.startswith("mcp__") or not tool.endswith(tuple(f"claudemesh__{one}" for one in READS)):
        return ""
    decision = {"permissionDecision": "allow", "permissionDecisionReason": "The tool changes nothing."}
    return json.dumps({"hookSpecificOutput": {"hookEventName": "PreToolUse", **decision}})


def is_attended() -> bool:
    """Whether a person is at the client. The end of an unattended turn is printed, so it stays as it is."""
    return os.environ.get("CLAUDE_CODE_ENTRYPOINT", "cli") == "cli"
