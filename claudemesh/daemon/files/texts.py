"""Long texts: a text over the broker's limit of a body goes the way of a file.

See docs/spec/daemon.md, Shared files.

Its message holds the beginning. The receiver fetches the rest when it is asked for, and keeps it in a folder
until the message is deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from claudemesh.daemon.files.fetching import Fetching
from claudemesh.daemon.files.sharing import (
    MAX_TEXT_BYTES,
    ShareRequest,
    Sharing,
    fields_of,
    share_of_text,
)
from claudemesh.daemon.inbox.attached import ReceivedFiles
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.outbox.submitting import Submit
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.files import make_private_dir
from claudemesh.runtime.logs import get_logger

log = get_logger("files")

# A text below this share of the limit fits always: JSON spells a character with six bytes at most.
_SURELY_FITS = 8
_WAIT_MS = 20_000


class LongTexts:
    """Sends of any length: short ones by the outbox, long ones as files."""

    def __init__(self, submit: Submit, sharing: Sharing, inline_bytes: Callable[[], int]) -> None:
        self._submit = submit
        self._sharing = sharing
        self._inline_bytes = inline_bytes

    async def submit(
        self,
        request: SendRequest,
        *,
        wait_ms: int | None = None,
        on_queued: Callable[[], None] | None = None,
    ) -> Answer:
        """Accept a send durably. A long text is answered with 202 without waiting for the broker."""
        known = request.client_message_id
        if known is not None and self._sharing.is_known(known):
            answer = await self._sharing.answer_known(_share_of(request))
            if answer is not None:
                return _queued(answer)
        if len(request.message) * _SURELY_FITS <= self._inline_bytes():
            return await self._submit(request, wait_ms=wait_ms, on_queued=on_queued)
        answer = await self._submit(request, wait_ms=wait_ms)
        if answer.body.get("error") != "payload_too_large":
            return answer
        if len(request.message.encode()) > MAX_TEXT_BYTES:
            message = f"A text may have at most {MAX_TEXT_BYTES} bytes. Send it as a file."
            raise ProtocolError("payload_too_large", message, limit=MAX_TEXT_BYTES)
        return _queued(await self._sharing.share(_share_of(request)))


def _share_of(request: SendRequest) -> ShareRequest:
    return share_of_text(request.message.encode(), fields_of(request))


def _queued(answer: Answer) -> Answer:
    """Return the answer to a share as that to a send."""
    if answer.status not in (200, 202):
        return answer
    return Answer(202, {"status": "queued", "client_message_id": answer.body["client_message_id"]})


class WholeTexts:
    """The long texts of received messages, in a folder of their own."""

    def __init__(self, folder: Path, files: ReceivedFiles, fetching: Fetching) -> None:
        self._folder = folder
        self._files = files
        self._fetching = fetching

    async def complete(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a message with its whole text. While it cannot be fetched, the message stays cut."""
        if not item["body_truncated"]:
            return item
        try:
            text = await self._text(str(item["id"]))
        except (ProtocolError, OSError) as error:
            log.info("text_not_fetched", id=item["id"], error=str(error))
            return item
        return item if text is None else {**item, "body": text, "body_truncated": False}

    async def _text(self, inbox_id: str) -> str | None:
        found = await self._files.text_of(inbox_id)
        if found is None or found.file.size > MAX_TEXT_BYTES:
            return None
        path = self._folder / inbox_id
        if not path.exists():
            make_private_dir(self._folder)
            await self._tidy()
            answer = await self._fetching.fetch_to(found, self._folder, _WAIT_MS)
            if answer.status != 200:
                return None
        raw = await asyncio.to_thread(path.read_bytes)
        return raw.decode(errors="replace")

    async def _tidy(self) -> None:
        """Delete texts whose messages are deleted."""
        known = await self._files.texts()
        for path in self._folder.iterdir():
            if path.name.strip(".").removesuffix(".part") not in known:
                with suppress(OSError):
                    path.unlink()
