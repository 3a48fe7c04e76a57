"""Sends of `send`, `reply` and `topic post`: texts of any length, and the answer as they print it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from claudemesh.cli import output
from claudemesh.cli.next_commands import after_send
from claudemesh.client.local import LocalClient
from claudemesh.runtime.destinations import QUEUE_MARK, TOPIC_MARK

# The daemon takes no larger request.
_MOST_BYTES = 1 << 20


def print_sent(answer: Mapping[str, Any], mesh: str | None, *, as_json: bool) -> int:
    """Print the status and the id of a send, and return exit code 0."""
    sent = answer["client_message_id"]
    following = after_send(answer, mesh)
    return output.print_answer(
        as_json, answer, f"{answer['status']} {sent}", next=following, made=sent, hint=False
    )


def post_text(client: LocalClient, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Post a send. A long text is given to the daemon as a file."""
    if len(orjson.dumps(body)) <= _MOST_BYTES:
        return client.post(path, body)
    # Imported here: only a long text needs it.
    import tempfile

    given = {name: value for name, value in body.items() if name not in ("message", "topic")}
    if "topic" in body:
        topic = str(body["topic"])
        given["to"] = topic if topic.startswith((TOPIC_MARK, QUEUE_MARK)) else f"{TOPIC_MARK}{topic}"
    with tempfile.TemporaryDirectory(prefix="claudemesh-") as folder:
        file = Path(folder) / "message.txt"
        file.write_text(str(body["message"]), encoding="utf-8", newline="")
        answer = client.post("/v1/file/share", {**given, "path": str(file), "as_text": True})
    return {"status": answer["status"], "client_message_id": answer["client_message_id"]}
