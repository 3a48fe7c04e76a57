from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.filestream import (
    HEADER_BYTES,
    OVERHEAD_BYTES,
    StreamOpener,
    StreamSealer,
    chunks_in,
    sealed_size,
    size_of_sealed,
)

KEY = bytes(range(32))


def sealed(chunks: list[bytes], key: bytes = KEY) -> tuple[bytes, list[bytes]]:
    """The header and the encrypted chunks of a file."""
    sealer = StreamSealer(key)
    last = len(chunks) - 1
    return sealer.header, [sealer.seal(chunk, is_last=n == last) for n, chunk in enumerate(chunks)]


def opened(header: bytes, parts: list[bytes], key: bytes = KEY) -> list[bytes]:
    """The chunks of a blob, which must be whole."""
    opener = StreamOpener(key, header)
    last = len(parts) - 1
    found = [opener.open(part, is_last=n == last) for n, part in enumerate(parts)]
    assert opener.is_over
    return found


CHUNKS = st.lists(st.binary(max_size=40), min_size=1, max_size=6)


@given(CHUNKS)
def test_a_file_opens_with_its_key(chunks: list[bytes]) -> None:
    """Each chunk is 17 bytes longer when it is encrypted."""
    header, parts = sealed(chunks)
    assert [len(part) - len(chunk) for part, chunk in zip(parts, chunks, strict=True)] == [17] * len(chunks)
    assert opened(header, parts) == chunks


@given(CHUNKS, st.data())
def test_a_blob_that_is_changed_does_not_open(chunks: list[bytes], data: st.DataObject) -> None:
    """Cut off, reordered, repeated, continued, or one bit changed."""
    header, parts = sealed(chunks)
    _, others = sealed([*chunks, b"more"])
    place = data.draw(st.integers(0, len(parts) - 1))
    flipped = bytearray(parts[place])
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    wrong = [
        parts[:-1],
        [*parts, parts[-1]],
        [*parts[:place], bytes(flipped), *parts[place + 1 :]],
        others,
        [*parts[:place], parts[place][:-1], *parts[place + 1 :]],
        [b"", *parts],
    ]
    if len(parts) > 1:
        wrong += [parts[1:], [parts[1], parts[0], *parts[2:]], [parts[0], *parts]]
    for blob in wrong:
        if not blob:
            continue
        with pytest.raises(ProtocolError, match="cannot_open"):
            opened(header, blob)


def test_another_key_and_another_header_do_not_open() -> None:
    """Each file has a key of its own."""
    header, parts = sealed([b"text"])
    with pytest.raises(ProtocolError, match="cannot_open"):
        opened(header, parts, bytes(32))
    with pytest.raises(ProtocolError, match="cannot_open"):
        opened(sealed([b"text"])[0], parts)
    with pytest.raises(ProtocolError, match="cannot_open"):
        StreamOpener(KEY, header[:-1])


@given(CHUNKS, st.data())
def test_a_download_continues_behind_chunks_that_were_written(
    chunks: list[bytes], data: st.DataObject
) -> None:
    """The chunks on the disk lead to the state in which the next one opens, and to the bytes of the blob."""
    header, parts = sealed(chunks)
    done = data.draw(st.integers(0, len(chunks) - 1))
    opener = StreamOpener(KEY, header)
    assert [opener.skip(chunk) for chunk in chunks[:done]] == parts[:done]
    rest = parts[done:]
    assert [opener.open(part, is_last=part is rest[-1]) for part in rest] == chunks[done:]


def test_a_download_does_not_continue_behind_changed_chunks() -> None:
    """A temporary file that another program has changed is noticed at the next chunk."""
    header, parts = sealed([b"one", b"two"])
    opener = StreamOpener(KEY, header)
    opener.skip(b"0ne")
    with pytest.raises(ProtocolError, match="cannot_open"):
        opener.open(parts[1], is_last=True)


@given(st.integers(0, 1 << 40), st.integers(1 << 10, 1 << 20))
def test_the_size_of_a_blob_follows_from_the_size_of_the_file(size: int, chunk: int) -> None:
    """And the other way round, so that a wrong size is noticed before the first byte is fetched."""
    blob = sealed_size(size, chunk)
    assert blob == HEADER_BYTES + size + OVERHEAD_BYTES * chunks_in(size, chunk)
    assert size_of_sealed(blob, chunk) == size


def test_no_file_has_a_blob_shorter_than_one_empty_chunk() -> None:
    """Header and tag are always there."""
    assert size_of_sealed(HEADER_BYTES + OVERHEAD_BYTES) == 0
    assert [size_of_sealed(short) for short in (0, HEADER_BYTES, HEADER_BYTES + OVERHEAD_BYTES - 1)] == [
        None
    ] * 3


def test_nothing_is_encrypted_behind_the_last_chunk() -> None:
    """The final tag ends the stream."""
    sealer = StreamSealer(KEY)
    sealer.seal(b"", is_last=True)
    with pytest.raises(ValueError, match="last chunk"):
        sealer.seal(b"", is_last=True)
