"""Calls about blobs: begin, open, attach, note as fetched, delete (docs/spec/broker.md, Blobs)."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Final

from claudemesh.broker.blobs.service import not_found
from claudemesh.broker.calls.base import Answer, Caller, Method, Params, flag, only
from claudemesh.broker.store.blobs import Blob
from claudemesh.protocol.attachments import BLOB_ID
from claudemesh.protocol.authority import judge_administration
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.ids import HEX_32, check_client_message_id
from claudemesh.runtime.errors import StorageFull

_OURS: Final = re.compile(r"[0-9a-f]{32}")


def _with_room(call: Callable[[Caller, Params], Coroutine[Any, Any, Answer]]) -> Method:
    """Refuse a call with insufficient_storage while the disk of the broker is full."""

    @wraps(call)
    async def guarded(caller: Caller, params: Params) -> Answer:
        try:
            return await call(caller, params)
        except StorageFull as error:
            caller.context.degraded.failed("blobs", error)
            raise ProtocolError(
                "insufficient_storage", "The disk of the broker is full. Call again when it has space."
            ) from error

    return guarded


async def begin(caller: Caller, params: Params) -> Answer:
    """Begin an upload, or go on with an unfinished one.

    The same owner, size and SHA-256 find the same upload, so `blob_id` is a check only: `blob_not_found` says
    that the upload was deleted.
    """
    only(params, "size", "sha256", "blob_id")
    size, digest = params.get("size"), params.get("sha256")
    if type(size) is not int or size < 1:
        raise InvalidField("invalid_params", "size", "size must be a whole number from 1.")
    if not isinstance(digest, str) or HEX_32.fullmatch(digest) is None:
        raise InvalidField("invalid_params", "sha256", "sha256 must be 64 hexadecimal digits.")
    blobs, sha256 = caller.context.blobs, bytes.fromhex(digest)
    if params.get("blob_id") is not None:
        known = await _own(caller, params)
        if (known.size, known.sha256) != (size, sha256):
            raise InvalidField(
                "invalid_params", "blob_id", "The upload was begun with another size or SHA-256."
            )
    granted = await blobs.begin(caller.mesh_id, caller.member_id, size, sha256)
    blob = granted.blob
    return {
        "blob_id": blob.id,
        "ticket": granted.ticket,
        "offset": blob.size if blob.complete else blobs.uploads.offset(blob),
        "complete": blob.complete,
        "expires_at": granted.expires_at,
    }


async def open_blob(caller: Caller, params: Params) -> Answer:
    """Give a ticket to download a blob. Every member of the mesh that knows its id may have one."""
    only(params, "blob_id")
    blobs = caller.context.blobs
    granted = await blobs.grant(await _complete(caller, params), caller.member_id, "down")
    return {
        "ticket": granted.ticket,
        "size": granted.blob.size,
        "sha256": granted.blob.sha256.hex(),
        "expires_at": granted.expires_at,
    }


async def attach(caller: Caller, params: Params) -> Answer:
    """Note that an accepted message of the caller announces its blob, so that its recipients are known."""
    only(params, "blob_id", "client_message_id", "persistent")
    client_message_id = check_client_message_id(params.get("client_message_id"))
    persistent = flag(params, "persistent")
    blob = await _own(caller, params)
    if not await caller.context.blobs.store.attach(blob, client_message_id, persistent=persistent):
        raise ProtocolError("not_found", "The broker has accepted no message of this id. Send it first.")
    return {"blob_id": blob.id, "attached": True}


async def fetched(caller: Caller, params: Params) -> Answer:
    """Note that the caller has the whole blob."""
    only(params, "blob_id")
    blob, context = await _complete(caller, params), caller.context
    await context.blobs.store.fetched(blob.id, caller.member_id, context.lived.now_ms())
    return {"blob_id": blob.id, "fetched": True}


async def delete(caller: Caller, params: Params) -> Answer:
    """Delete a blob: by its owner, or by an owner or admin of the mesh."""
    only(params, "blob_id")
    context = caller.context
    blob = await _found(caller, params)
    if blob.owner_member_id != caller.member_id:
        member = await context.store.members.find(caller.mesh_id, caller.member_id)
        if member is None or judge_administration(member.role) is not None:
            raise ProtocolError(
                "not_authorized", "Only the member that shared a file, an owner or an admin may delete it."
            )
    context.blobs.uploads.forget(blob.id)
    if await context.blobs.store.delete(blob.id):
        context.audit.record(
            blob.mesh_id, "blob_deleted", caller.member_id, blob_id=blob.id, owner=blob.owner_member_id
        )
    return {"blob_id": blob.id, "deleted": True}


async def _found(caller: Caller, params: Params) -> Blob:
    value = params.get("blob_id")
    if not isinstance(value, str) or BLOB_ID.fullmatch(value) is None:
        raise InvalidField("invalid_params", "blob_id", "blob_id must be the id of a blob.")
    if _OURS.fullmatch(value) is None:
        # An id of another form is no id of a broker.
        raise not_found()
    return await caller.context.blobs.find(caller.mesh_id, value)


async def _complete(caller: Caller, params: Params) -> Blob:
    blob = await _found(caller, params)
    if not blob.complete:
        raise not_found()
    return blob


async def _own(caller: Caller, params: Params) -> Blob:
    """Return a blob of the caller; a blob of another member is not found."""
    blob = await _found(caller, params)
    if blob.owner_member_id != caller.member_id:
        raise not_found()
    return blob


METHODS: dict[str, Method] = {
    name: _with_room(call)
    for name, call in (
        ("blob_begin", begin),
        ("blob_open", open_blob),
        ("blob_attach", attach),
        ("blob_fetched", fetched),
        ("blob_delete", delete),
    )
}
