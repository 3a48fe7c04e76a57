"""Acceptance of a file: checked, encrypted into the spool, and written (docs/spec/daemon.md, Shared files).

Crash story: before the row is committed the caller has no answer, and the copy is deleted at the next start.
After it the file is shared, also when the source has changed or is gone.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Protocol

import orjson
from msgspec import Struct
from msgspec.structs import replace

from claudemesh.daemon.files.source import TextSource, open_source
from claudemesh.daemon.files.spool import Spool, Spooled, SpoolLimits
from claudemesh.daemon.files.states import ShareState
from claudemesh.daemon.files.store import FilesStore, SharedFile
from claudemesh.daemon.outbox.mentions import names_in
from claudemesh.daemon.outbox.request import SEND_FIELDS, SendRequest, Target, parse_send
from claudemesh.daemon.outbox.states import Answer
from claudemesh.protocol.attachments import KEY_BYTES, MAX_NAME_BYTES, MEDIA_TYPE
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.filestream import CHUNK_BYTES
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.destinations import spell_destination
from claudemesh.runtime.errors import StorageUnavailable

# The longest text, and the part of it that comes with its message.
MAX_TEXT_BYTES = 16 << 20
BEGINNING_BYTES = 4096
_TEXT_NAME = "message.txt"
_HASHED = "claudemesh-share-v1"
# The names that a long text mentions, among the fields of its send in files.db.
_NAMED = "named"
_SEND_FIELDS = SEND_FIELDS - {"message"}
# Fields that another attempt of the same send may have otherwise.
_NOT_ASKED = {"hops", "traceparent"}


class ShareRequest(Struct, frozen=True):
    """A file or a long text to share. `send` is its announcement, with the fields of a send.

    `text` is set for a text, whose beginning is the message of the announcement.
    """

    path: str
    send: SendRequest
    fields: Mapping[str, Any]
    persistent: bool = False
    text: bytes | None = None

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of what the caller asks for. A retry has the same, also when the source has vanished."""
        origin = self.path if self.text is None else hashlib.sha256(self.text).hexdigest()
        fields = {name: value for name, value in self.fields.items() if name not in _NOT_ASKED}
        parts = [_HASHED, self.text is not None, origin, self.persistent, fields]
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).digest()


def parse_share(body: Mapping[str, Any]) -> ShareRequest:
    """Parse the body of `POST /v1/file/share` for a file. Raise `InvalidField`."""
    fields = _given(body)
    fields["message"] = body.get("message") or ""
    return ShareRequest(body["path"], parse_send(fields), fields, bool(body.get("persistent")))


def share_of_text(text: bytes, body: Mapping[str, Any]) -> ShareRequest:
    """Return the share of a text, with the other fields of a send. Raise `InvalidField`."""
    fields = {**_given(body), "message": beginning(text)}
    return ShareRequest("", parse_send(fields), fields, text=text)


def beginning(text: bytes) -> str:
    """Return the part of a text that comes with its message."""
    return text[:BEGINNING_BYTES].decode(errors="ignore")


def fields_of(request: SendRequest) -> dict[str, Any]:
    """Return the fields of a send, without its message, as `parse_send` takes them."""
    return {
        "to": _spelled(request.target),
        "priority": request.priority,
        "meta": request.meta,
        "reply_to_id": request.reply_to_id,
        "mentions": [_spelled(target) for target in request.mentions] or None,
        "client_message_id": request.client_message_id,
        "from_session": request.from_session,
        "hops": request.hops or None,
        "traceparent": request.traceparent,
        "receipt": request.receipt and request.receipt.word,
    }


def _spelled(target: Target) -> str:
    member = target.name or spell_destination(target.kind, target.ref or "")
    return member if target.session is None else f"{member}/{target.session}"


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in _SEND_FIELDS if body.get(name) is not None}


class Gate(Protocol):
    """The check of an announcement before its file is read."""

    async def __call__(self, request: SendRequest, client_message_id: str) -> Answer | None:
        """Return the refusal, or None for a send that would be accepted now."""
        ...


class Sharing:
    """Accepts files, one after the other."""

    def __init__(
        self,
        home: Path,
        store: FilesStore,
        spool: Spool,
        limits: Callable[[], SpoolLimits],
        gate: Gate,
        clock: Clock,
        new_id: Callable[[], str],
        executor: Executor,
    ) -> None:
        self._home = home
        self._store = store
        self._spool = spool
        self._limits = limits
        self._gate = gate
        self._clock = clock
        self._new_id = new_id
        self._executor = executor
        self._lock = asyncio.Lock()
        self.on_added: Callable[[], None] = lambda: None

    async def share(self, request: ShareRequest) -> Answer:
        """Accept a file durably, or answer from the row of a known id. Raise `ProtocolError`."""
        client_message_id = request.send.client_message_id or self._new_id()
        async with self._lock:
            known = await self._store.by_send(client_message_id)
            if known is not None:
                return _known(known, request)
            # Taken from here on, so that a send meanwhile does not take the same id.
            self._store.ids.add(client_message_id)
            try:
                answer = await self._added(request, client_message_id)
            except BaseException:
                self._store.ids.discard(client_message_id)
                raise
            if isinstance(answer, Answer):
                self._store.ids.discard(client_message_id)
                return answer
        self.on_added()
        return _accepted(answer)

    def is_known(self, client_message_id: str) -> bool:
        """Whether a file or a long text has this id."""
        return client_message_id in self._store.ids

    async def answer_known(self, request: ShareRequest) -> Answer | None:
        """Return the answer from the row of a known id; None when there is no row after all."""
        async with self._lock:
            known = await self._store.by_send(request.send.client_message_id or "")
        return None if known is None else _known(known, request)

    async def _added(self, request: ShareRequest, client_message_id: str) -> SharedFile | Answer:
        refusal = await self._gate(request.send, client_message_id)
        if refusal is not None:
            return refusal
        file = await self._spooled(request, client_message_id)
        try:
            await self._store.add(file)
        except StorageUnavailable:
            # Nothing was committed. After any other failure the daemon ends, and its next start tidies.
            await self._in_thread(self._spool.remove, file.file_id)
            raise
        return file

    async def _spooled(self, request: ShareRequest, client_message_id: str) -> SharedFile:
        file_id, key = self._new_id(), os.urandom(KEY_BYTES)
        name, found = await self._in_thread(self._read, request, file_id, key, self._limits())
        fields = {**request.fields, "client_message_id": client_message_id}
        if request.text is not None and request.send.target.kind == "topic":
            fields[_NAMED] = await self._in_thread(_names_in, request.text)
        return SharedFile(
            file_id=file_id,
            client_message_id=client_message_id,
            request_fingerprint=request.fingerprint,
            request=fields,
            persistent=request.persistent,
            name=name,
            media_type=media_type_of(name),
            size=found.size,
            sha256=found.sha256,
            blob_size=found.blob_size,
            blob_sha256=found.blob_sha256,
            chunk_bytes=CHUNK_BYTES,
            key=key,
            created_at=self._clock.wall_ms(),
            is_text=request.text is not None,
        )

    async def text_at(self, path: str) -> bytes:
        """Return the text in a file. Raise `ProtocolError` for a larger one, and one that is no UTF-8."""
        text: bytes = await self._in_thread(self._read_text, path)
        return text

    async def _in_thread(self, work: Callable[..., Any], *values: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *values)

    def _read_text(self, path: str) -> bytes:
        source = open_source(path, self._home)
        try:
            raw = source.read(MAX_TEXT_BYTES + 1)
        finally:
            os.close(source.descriptor)
        if len(raw) > MAX_TEXT_BYTES:
            text = f"A text may have at most {MAX_TEXT_BYTES} bytes. Send it as a file."
            raise ProtocolError("payload_too_large", text, limit=MAX_TEXT_BYTES)
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            raise InvalidField("not_utf8", "path", f"{path} is not UTF-8. Send it as a file.") from error
        return raw

    def _read(
        self, request: ShareRequest, file_id: str, key: bytes, limits: SpoolLimits
    ) -> tuple[str, Spooled]:
        if request.text is not None:
            return _TEXT_NAME, self._spool.add(TextSource(request.text), file_id, key, limits)
        source = open_source(request.path, self._home)
        try:
            return _offered(source.name), self._spool.add(source, file_id, key, limits)
        finally:
            os.close(source.descriptor)


def announcement(file: SharedFile) -> SendRequest:
    """Return the send that announces a file."""
    fields = dict(file.request)
    named = fields.pop(_NAMED, None)
    names = None if named is None else tuple(map(tuple, named))
    return replace(parse_send(fields), attachments=(file.attachment(),), named=names)


def _names_in(text: bytes) -> list[tuple[str, ...]]:
    return list(names_in(text.decode(errors="replace")))


def media_type_of(name: str) -> str | None:
    """Return the media type that the name suggests."""
    found, encoding = mimetypes.guess_type(name)
    return found if found is not None and encoding is None and MEDIA_TYPE.fullmatch(found) else None


def _offered(name: str) -> str:
    """Return a file's name as text. Bytes that are no UTF-8 become replacement characters."""
    text = os.fsencode(name).decode(errors="replace")
    return text.encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def _accepted(file: SharedFile) -> Answer:
    return Answer(
        200 if file.state is ShareState.SHARED else 202,
        {
            "status": "done" if file.state is ShareState.SHARED else "queued",
            "client_message_id": file.client_message_id,
            "file_id": file.file_id,
            "name": file.name,
            "size": file.size,
            "sha256": file.sha256,
            "state": file.state.value,
        },
    )


def _known(file: SharedFile, request: ShareRequest) -> Answer:
    if file.request_fingerprint != request.fingerprint:
        text = "This client_message_id belongs to another file; use a new id for a new file."
    elif file.state is ShareState.FAILED:
        text = f"This file was given up: {_clause(file.error)}. Send it again with a new client_message_id."
    elif file.state is ShareState.DELETED:
        text = "This file was deleted; send it again with a new client_message_id."
    else:
        return _accepted(file)
    known = {"client_message_id": file.client_message_id, "file_id": file.file_id}
    body = {"error": "idempotency_key_reused", "message": text, **known}
    return Answer(409, body)


def _clause(error: str | None) -> str:
    return (error or "the log has the cause").rstrip(".")
