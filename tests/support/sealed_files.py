"""Files as their senders announce them, with the blobs that hold them."""

from __future__ import annotations

import hashlib
import os

from claudemesh.protocol.attachments import Attachment
from claudemesh.protocol.filestream import StreamSealer

CHUNK = 1 << 10


def sealed_file(
    content: bytes,
    *,
    file_id: str = "01HZ0000000000000000000000",
    blob_id: str = "0" * 32,
    is_text: bool = False,
) -> tuple[Attachment, bytes]:
    """Return a file in chunks of 1 KiB, and its blob."""
    key = os.urandom(32)
    sealer = StreamSealer(key)
    blob = sealer.header
    starts = range(0, max(1, len(content)), CHUNK)
    for at in starts:
        blob += sealer.seal(content[at : at + CHUNK], is_last=at == starts[-1])
    plain, encrypted = (hashlib.sha256(raw).hexdigest() for raw in (content, blob))
    file = Attachment(file_id, "name.txt", len(content), plain, blob_id, encrypted, key, CHUNK, None, is_text)
    return file, blob
