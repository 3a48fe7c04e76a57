"""JSON of the routes for files, as msgspec Structs (docs/spec/daemon.md, Shared files)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from claudemesh.daemon.api.schemas import (
    Body,
    ClientMessageId,
    Hops,
    Mentions,
    Moment,
    Priority,
    Session,
    Traceparent,
    Ulid,
    Wish,
)

_Path = Annotated[str, Meta(min_length=1, max_length=4096)]


class FileShareBody(Body):
    """A file to share: an absolute path on this host, and the message that announces it.

    With `as_text` the file holds the text of the message: UTF-8, at most 16 MiB. `message` is left out then.
    """

    path: _Path
    to: Annotated[str, Meta(min_length=1, description="@name, name, a 64-hex key, #topic or queue:name")]
    message: str | None = None
    persistent: bool | None = None
    client_message_id: ClientMessageId | None = None
    as_text: bool | None = None
    priority: Priority | None = None
    meta: dict[str, Any] | None = None
    reply_to_id: Ulid | None = None
    mentions: Mentions | None = None
    from_session: Session | None = None
    receipt: Wish | None = None
    hops: Hops | None = None
    traceparent: Traceparent | None = None


class FileGetBody(Body):
    """A file to fetch, and an absolute path: a directory, or a file to create in one.

    `message_id` is the id of the message that announces it, for files of several members with one id.
    """

    id: Ulid
    out: _Path
    message_id: Ulid | None = None
    wait_ms: Annotated[int, Meta(ge=0, le=30_000)] | None = None


class FileDeleteBody(Body):
    """A file to delete."""

    id: Ulid


class FileShared(Struct):
    """The file is encrypted on this host's disk. Its message leaves when the broker has the file."""

    status: Literal["queued", "done"]
    client_message_id: str
    file_id: str
    name: str
    size: int
    sha256: str
    state: str


class FileFetched(Struct):
    """The file is at `path`, and is what its sender has announced."""

    status: Literal["done"]
    file_id: str
    path: str
    name: str
    size: int
    sha256: str


class FileFetching(Struct):
    """The download goes on. The same request again waits for it."""

    status: Literal["fetching"]
    file_id: str
    received: int
    size: int


class FileItem(Struct):
    """A file. `direction` is `in` for a file that was announced to this host, `out` for one that it shares.

    `state` of `in`: announced, fetched; of `out`: uploading, announcing, attaching, shared, failed, deleted.
    `sent` is the number of bytes that the broker has during an upload. `error` is the cause of a wait or of a
    failure; of `in` it is the code of the last download. `is_text` is there with `texts=true`: the file is a
    long text of this host, which is no file to fetch.
    """

    file_id: str
    name: str
    size: int
    sha256: str
    media_type: str | None
    direction: Literal["in", "out"]
    state: str
    message_id: str | UnsetType = UNSET
    sender_name: str | UnsetType = UNSET
    sender_pubkey: str | UnsetType = UNSET
    kind: str | UnsetType = UNSET
    topic: str | UnsetType | None = UNSET
    received_at: Moment | UnsetType = UNSET
    fetched_at: Moment | UnsetType | None = UNSET
    to: str | UnsetType = UNSET
    client_message_id: str | UnsetType = UNSET
    persistent: bool | UnsetType = UNSET
    error: str | UnsetType | None = UNSET
    created_at: Moment | UnsetType = UNSET
    sent: int | UnsetType | None = UNSET
    is_text: bool | UnsetType = UNSET


class FilePage(Struct):
    """Files, newest first; pass `next` as `after` to get the next page."""

    items: list[FileItem]
    next: str | None


class FileDeleted(Struct):
    """The blob of the file is deleted at the broker."""

    status: Literal["deleted"]
    file_id: str
