"""Files of this host as the API lists and deletes them: those that it shares, and those announced to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import Struct

from claudemesh.daemon.calls import Ask
from claudemesh.daemon.files.spool import Spool
from claudemesh.daemon.files.states import ShareState
from claudemesh.daemon.files.store import FilesStore, SharedFile
from claudemesh.daemon.files.threads import Threads
from claudemesh.daemon.files.uploads import Uploads
from claudemesh.daemon.inbox.attached import ReceivedFiles
from claudemesh.protocol.blob_replies import blob_noted
from claudemesh.protocol.errors import ProtocolError

Direction = Literal["in", "out"]

# Clauses about files whose message is not in the outbox.
_NOT_SENT: Final = {
    ShareState.UPLOADING: "its file is on its way to the broker",
    ShareState.ANNOUNCING: "its file is at the broker, and its message follows",
    ShareState.FAILED: "its file was given up",
    ShareState.DELETED: "its file was deleted",
}


class FileLists(Struct, frozen=True, kw_only=True):
    """Lists and deletes files."""

    store: FilesStore
    received: ReceivedFiles
    spool: Spool
    uploads: Uploads
    threads: Threads
    ask: Ask

    async def page(
        self, direction: Direction, before: int | None, limit: int, *, with_texts: bool = False
    ) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        """Return up to `limit` files, newest first, and the cursor of the next page or None.

        `with_texts`: those that this host shares with its long texts, each marked by `is_text`.
        """
        if direction == "in":
            received = await self.received.page(before, limit + 1)
            items = [(one.number, one.item()) for one in received]
        else:
            shared = await self.store.page(before, limit + 1, with_texts=with_texts)
            sent = self.uploads.sent
            items = [(one.number, {**one.item(), "sent": sent.get(one.file_id)}) for one in shared]
            if with_texts:
                for (_, item), one in zip(items, shared, strict=True):
                    item["is_text"] = one.is_text
        more = str(items[limit - 1][0]) if len(items) > limit else None
        return [item for _, item in items[:limit]], more

    async def fate(self, client_message_id: str) -> Mapping[str, Any] | None:
        """Return the state of the file or long text of a send, and a clause about it.

        Its message is in the outbox when the broker has the file. None: it is there, or no file has the id.
        """
        file = await self.store.by_send(client_message_id)
        if file is None or file.state not in _NOT_SENT:
            return None
        clause = _NOT_SENT[file.state]
        return {"file_state": file.state.value, "detail": f"{clause}: {file.error}" if file.error else clause}

    async def delete(self, file_id: str) -> Mapping[str, Any]:
        """Delete the blob of a shared file. Before its message has left, the message does not leave.

        Raise `ProtocolError` not_found, not_authorized for another member's file, and broker_unavailable.
        """
        file = await self.store.by_id(file_id)
        if file is None:
            if await self.received.is_announced(file_id):
                text = "Only the sender of a file can delete it at the broker. Delete your own copy of it."
                raise ProtocolError("not_authorized", text)
            text = f"This host shares no file {file_id}. `claudemesh file list --sent` lists its files."
            raise ProtocolError("not_found", text)
        if file.state is not ShareState.DELETED:
            self.uploads.cancel(file_id)
            try:
                await self._delete(file)
            except BaseException:
                self.uploads.go_on(file_id)
                raise
        await self.threads.run(self.spool.remove, file_id)
        return {"status": "deleted", "file_id": file_id}

    async def _delete(self, file: SharedFile) -> None:
        if file.blob_id is not None:
            await self._delete_blob(file.blob_id)
        if await self.store.move(file, ShareState.DELETED) is None:
            raise ProtocolError("daemon_busy", "The file has just changed its state. Try again.")

    async def _delete_blob(self, blob_id: str) -> None:
        try:
            await self.ask("blob_delete", {"blob_id": blob_id}, blob_noted)
        except ProtocolError as error:
            if error.code != "blob_not_found":
                raise
