"""Replies of a broker to the calls about blobs (docs/spec/protocol.md, Blobs)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from claudemesh.protocol import fields
from claudemesh.protocol.attachments import BLOB_ID
from claudemesh.protocol.ids import HEX_32
from claudemesh.protocol.replies import reader, record

MAX_TICKET_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class BlobBegun:
    """The reply to `blob_begin`; `offset` is the number of bytes that the broker has already.

    `is_complete`: it has all of them, and has verified them.
    """

    blob_id: str
    ticket: str
    offset: int
    is_complete: bool = False


@dataclass(frozen=True, slots=True)
class BlobOpened:
    """The reply to `blob_open`: a ticket, and size and SHA-256 of the blob as the broker has it."""

    ticket: str
    size: int
    sha256: str


@reader("blob_begin")
def blob_begun(value: Any) -> BlobBegun:
    """Read the reply to `blob_begin`."""
    found = record(value, "ok")
    return BlobBegun(
        blob_id=fields.matching(found, "blob_id", BLOB_ID),
        ticket=fields.text(found, "ticket", MAX_TICKET_CHARACTERS),
        offset=fields.integer(found, "offset"),
        is_complete="complete" in found and fields.boolean(found, "complete"),
    )


@reader("blob_open")
def blob_opened(value: Any) -> BlobOpened:
    """Read the reply to `blob_open`."""
    found = record(value, "ok")
    return BlobOpened(
        ticket=fields.text(found, "ticket", MAX_TICKET_CHARACTERS),
        size=fields.integer(found, "size"),
        sha256=fields.matching(found, "sha256", HEX_32),
    )


@reader("blob")
def blob_noted(value: Any) -> None:
    """Read the reply to `blob_attach`, `blob_fetched` and `blob_delete`, which has no content."""
    record(value, "ok")
