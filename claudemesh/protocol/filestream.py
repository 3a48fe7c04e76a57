"""Encryption of a file as chunks by libsodium's secretstream (docs/spec/protocol.md, Attachments).

A blob is a header of 24 bytes, then each chunk with 17 bytes more. The last chunk carries the final tag, so
a blob that is cut off, continued or reordered does not open. An empty file is one empty chunk.
"""

from __future__ import annotations

from typing import Final

from nacl.bindings import (
    crypto_secretstream_xchacha20poly1305_ABYTES,
    crypto_secretstream_xchacha20poly1305_HEADERBYTES,
    crypto_secretstream_xchacha20poly1305_init_pull,
    crypto_secretstream_xchacha20poly1305_init_push,
    crypto_secretstream_xchacha20poly1305_pull,
    crypto_secretstream_xchacha20poly1305_push,
    crypto_secretstream_xchacha20poly1305_state,
    crypto_secretstream_xchacha20poly1305_TAG_FINAL,
    crypto_secretstream_xchacha20poly1305_TAG_MESSAGE,
)
from nacl.exceptions import CryptoError

from claudemesh.protocol.errors import ProtocolError

HEADER_BYTES: Final = crypto_secretstream_xchacha20poly1305_HEADERBYTES
OVERHEAD_BYTES: Final = crypto_secretstream_xchacha20poly1305_ABYTES
CHUNK_BYTES: Final = 1 << 20
_FINAL: Final = crypto_secretstream_xchacha20poly1305_TAG_FINAL
_MESSAGE: Final = crypto_secretstream_xchacha20poly1305_TAG_MESSAGE


def chunks_in(size: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Return the number of chunks of a file with `size` bytes."""
    return max(1, -(-size // chunk_bytes))


def sealed_size(size: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Return the size of the blob of a file with `size` bytes."""
    return HEADER_BYTES + size + OVERHEAD_BYTES * chunks_in(size, chunk_bytes)


def size_of_sealed(sealed: int, chunk_bytes: int = CHUNK_BYTES) -> int | None:
    """Return the size of the file in a blob with `sealed` bytes, None where no file has such a blob."""
    rest = sealed - HEADER_BYTES
    chunks = max(1, -(-rest // (chunk_bytes + OVERHEAD_BYTES)))
    size = rest - OVERHEAD_BYTES * chunks
    return size if size >= 0 and sealed_size(size, chunk_bytes) == sealed else None


class StreamSealer:
    """Encrypts the chunks of one file in order. `header` comes first in the blob."""

    __slots__ = ("_is_over", "_state", "header")

    def __init__(self, key: bytes) -> None:
        self._state = crypto_secretstream_xchacha20poly1305_state()
        self.header: bytes = crypto_secretstream_xchacha20poly1305_init_push(self._state, key)
        self._is_over = False

    def seal(self, chunk: bytes, *, is_last: bool) -> bytes:
        """Return the encrypted chunk. `ValueError` behind the last one."""
        if self._is_over:
            raise ValueError("The last chunk of this file is encrypted already.")
        self._is_over = is_last
        sealed: bytes = crypto_secretstream_xchacha20poly1305_push(
            self._state, chunk, tag=_FINAL if is_last else _MESSAGE
        )
        return sealed


class StreamOpener:
    """Decrypts the chunks of one blob in order. `is_over` is true behind the chunk with the final tag."""

    __slots__ = ("_state", "is_over")

    def __init__(self, key: bytes, header: bytes) -> None:
        """`ProtocolError` cannot_open for a header of another length."""
        if len(header) != HEADER_BYTES:
            raise _refused()
        self._state = crypto_secretstream_xchacha20poly1305_state()
        crypto_secretstream_xchacha20poly1305_init_pull(self._state, header, key)
        self.is_over = False

    def open(self, sealed: bytes, *, is_last: bool) -> bytes:
        """Return the chunk. `ProtocolError` cannot_open when it is not the next chunk of this file.

        `is_last` is whether the chunk must carry the final tag.
        """
        if self.is_over:
            raise _refused()
        try:
            chunk, tag = crypto_secretstream_xchacha20poly1305_pull(self._state, sealed)
        except (CryptoError, ValueError, RuntimeError) as error:
            raise _refused() from error
        if (tag == _FINAL) != is_last or tag not in (_FINAL, _MESSAGE):
            raise _refused()
        self.is_over = tag == _FINAL
        return bytes(chunk)

    def skip(self, chunk: bytes) -> bytes:
        """Continue behind a chunk that was opened before, and return it as it is encrypted.

        A download that resumes passes the chunks that it has written: encryption leads to the same state as
        decryption. The next chunk opens only when they are unchanged.
        """
        if self.is_over:
            raise _refused()
        sealed: bytes = crypto_secretstream_xchacha20poly1305_push(self._state, chunk, tag=_MESSAGE)
        return sealed


def _refused() -> ProtocolError:
    return ProtocolError(
        "cannot_open", "The blob is not the one that was encrypted, or it is cut off or changed."
    )
