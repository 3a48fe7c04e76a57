"""Attachments: the files that a sealed message announces (docs/spec/protocol.md, Attachments)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from claudemesh.protocol.base64 import from_base64, to_base64
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import HEX_32, ULID

MAX_ATTACHMENTS: Final = 16
MAX_NAME_BYTES: Final = 255
MAX_SIZE: Final = 1 << 50
KEY_BYTES: Final = 32
# A reader holds one chunk in memory, so its size has a bound.
MIN_CHUNK_BYTES: Final = 1 << 10
MAX_CHUNK_BYTES: Final = 1 << 20
BLOB_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")

_FIELDS: Final = ("file_id", "name", "size", "sha256", "blob_id", "blob_sha256", "key", "chunk_bytes")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that travels as a blob.

    `size` and `sha256` are of the file, `blob_sha256` of the encrypted blob. `key` opens the blob. `is_text`:
    the file is the whole text of the message, of which the message holds the beginning.
    """

    file_id: str
    name: str
    size: int
    sha256: str
    blob_id: str
    blob_sha256: str
    key: bytes
    chunk_bytes: int
    media_type: str | None = None
    is_text: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that is sealed."""
        value: dict[str, Any] = {
            "file_id": self.file_id,
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
            "blob_id": self.blob_id,
            "blob_sha256": self.blob_sha256,
            "key": to_base64(self.key),
            "chunk_bytes": self.chunk_bytes,
        }
        if self.media_type is not None:
            value["media_type"] = self.media_type
        if self.is_text:
            value["is_text"] = True
        return value


def parse_attachments(value: object) -> tuple[Attachment, ...]:
    """Return the attachments of a body; null and no field are none. `ProtocolError` invalid_content."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_ATTACHMENTS:
        raise _invalid(f"Its attachments are not a list of at most {MAX_ATTACHMENTS}.")
    found = tuple(map(_parse, value))
    if len({one.file_id for one in found}) < len(found):
        raise _invalid("Two attachments have the same file_id.")
    if sum(one.is_text for one in found) > 1:
        raise _invalid("Two attachments are the text of the message.")
    return found


def _parse(value: object) -> Attachment:
    if not isinstance(value, dict) or not all(name in value for name in _FIELDS):
        raise _invalid("An attachment lacks a field.")
    key = from_base64(value["key"])
    if key is None or len(key) != KEY_BYTES:
        raise _invalid(f"The key of an attachment is not {KEY_BYTES} bytes in base64.")
    media_type, is_text = value.get("media_type"), value.get("is_text", False)
    if not isinstance(is_text, bool):
        raise _invalid("is_text of an attachment is not true or false.")
    return Attachment(
        file_id=_matching(value, "file_id", ULID),
        name=_name(value["name"]),
        size=_number(value, "size", 0, MAX_SIZE),
        sha256=_matching(value, "sha256", HEX_32),
        blob_id=_matching(value, "blob_id", BLOB_ID),
        blob_sha256=_matching(value, "blob_sha256", HEX_32),
        key=key,
        chunk_bytes=_number(value, "chunk_bytes", MIN_CHUNK_BYTES, MAX_CHUNK_BYTES),
        media_type=None if media_type is None else _matching(value, "media_type", MEDIA_TYPE),
        is_text=is_text,
    )


def _name(value: object) -> str:
    """Return an offered name. Any character may be in it: a receiver cleans it before it writes a file."""
    try:
        fits = isinstance(value, str) and 0 < len(value.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise _invalid(f"The name of an attachment is not a text of 1 to {MAX_NAME_BYTES} bytes.")
    return str(value)


def _matching(value: dict[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    found = value[name]
    if not isinstance(found, str) or pattern.fullmatch(found) is None:
        raise _invalid(f"{name} of an attachment does not have the form {pattern.pattern}.")
    return found


def _number(value: dict[str, Any], name: str, low: int, high: int) -> int:
    found = value[name]
    if type(found) is not int or not low <= found <= high:
        raise _invalid(f"{name} of an attachment is not a whole number from {low} to {high}.")
    return found


def _invalid(reason: str) -> ProtocolError:
    return ProtocolError("invalid_content", f"The content of the body is not valid. {reason}")
