"""Sends with a text of any length: the daemon takes a long one as a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from claudemesh.client.errors import ApiError
from claudemesh.client.local import LocalClient, written
from claudemesh.runtime.destinations import QUEUE_MARK, TOPIC_MARK

# The daemon takes no larger request.
_MOST_BYTES = 1 << 20
# Refusals of a file that is in a directory which the daemon does not see.
_UNSEEN = ("file_not_found", "private_directory")


def post_text(client: LocalClient, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Post a send. A long text is given to the daemon as a file."""
    if len(written(body)) <= _MOST_BYTES:
        return client.post(path, body)
    given = {name: value for name, value in body.items() if name not in ("message", "topic")}
    if "topic" in body:
        topic = str(body["topic"])
        given["to"] = topic if topic.startswith((TOPIC_MARK, QUEUE_MARK)) else f"{TOPIC_MARK}{topic}"
    try:
        answer = _share_text(client, given, str(body["message"]), None)
    except ApiError as error:
        if error.code not in _UNSEEN:
            raise
        # A service has a temporary directory of its own.
        try:
            answer = _share_text(client, given, str(body["message"]), os.path.expanduser("~"))  # noqa: PTH111 - never raises
        except OSError:
            raise error from None
    return {"status": answer["status"], "client_message_id": answer["client_message_id"]}


def _share_text(
    client: LocalClient, given: Mapping[str, Any], text: str, place: str | None
) -> dict[str, Any]:
    """Share a text by a file in a private directory below `place`, None for the temporary directory."""
    # Imported here: only a long text needs it.
    import tempfile

    with tempfile.TemporaryDirectory(prefix=".claudemesh-", dir=place) as folder:
        file = Path(folder) / "message.txt"
        file.write_text(text, encoding="utf-8", newline="")
        return client.post("/v1/file/share", {**given, "path": str(file), "as_text": True})
