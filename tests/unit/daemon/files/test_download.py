"""Downloads from a broker that lies: bounded, and no side is blamed for a connection that has ended."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from claudemesh.daemon.files.download import Download, Ticket, Unopened
from claudemesh.protocol.attachments import Attachment
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.filestream import HEADER_BYTES, OVERHEAD_BYTES
from tests.support.blob_host import BlobHost
from tests.support.sealed_files import CHUNK, sealed_file
from tests.support.values import replace

BLOB = "0" * 32


@contextmanager
def download(
    file: Attachment, host: BlobHost, *, is_judging: bool = False, part: bytes = b""
) -> Generator[Download]:
    """A download from this broker into a file without a name, which has `part` of an earlier one."""
    with host, tempfile.TemporaryFile() as target:
        target.write(part)
        target.flush()
        yield Download(file, target.fileno(), host.server(), lambda: False, is_judging=is_judging)


def serve(blob: bytes) -> BlobHost:
    """A broker with one blob."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        first = first_of(request)
        request.send_response(206)
        request.send_header("Content-Length", str(len(blob) - first))
        request.end_headers()
        request.wfile.write(blob[first:])

    return BlobHost(handle)


def first_of(request: BaseHTTPRequestHandler) -> int:
    return int(request.headers["range"].removeprefix("bytes=").split("-")[0])


def flood(request: BaseHTTPRequestHandler, body: bytes) -> None:
    """Answer with bytes that do not end before the client does."""
    request.send_response(206)
    request.end_headers()
    request.close_connection = True
    try:
        while True:
            request.wfile.write(body)
            body = bytes(1 << 16)
    except OSError:
        return


def test_no_more_is_read_than_the_blob_has() -> None:
    """Neither behind the header, which is held in memory, nor behind a whole blob."""
    file, blob = sealed_file(os.urandom(5 * CHUNK + 7))
    with download(file, BlobHost(lambda request: flood(request, blob[first_of(request) :]))) as attempt:
        assert attempt.run(Ticket(BLOB, "t", len(blob)))
        assert attempt.received == file.size


def test_a_wrong_blob_without_end_is_the_fault_of_the_broker() -> None:
    """It is read up to its size."""
    file, blob = sealed_file(os.urandom(5 * CHUNK))
    wrong = blob[:HEADER_BYTES] + bytes(len(blob) - HEADER_BYTES)
    host = BlobHost(lambda request: flood(request, wrong[first_of(request) :]))
    with download(file, host, is_judging=True) as attempt:
        with pytest.raises(ProtocolError) as caught:
            attempt.run(Ticket(BLOB, "t", len(blob)))
        assert caught.value.code == "blob_changed"


def test_a_connection_that_ends_before_the_fault_is_known_blames_no_side() -> None:
    """The hash of the whole blob tells, and not all of it was read."""
    file, blob = sealed_file(os.urandom(5 * CHUNK))
    wrong = bytearray(blob)
    wrong[HEADER_BYTES] ^= 1

    def cut(request: BaseHTTPRequestHandler) -> None:
        _cut(request, wrong[first_of(request) : 3 * CHUNK])

    with download(file, BlobHost(cut), is_judging=True) as attempt, pytest.raises(ConnectionError):
        attempt.run(Ticket(BLOB, "t", len(blob)))


def test_small_chunks_that_came_before_a_connection_ended_stay() -> None:
    """So a link that breaks again and again brings the file all the same."""
    content = os.urandom(200 * CHUNK)
    file, blob = sealed_file(content)
    cut = HEADER_BYTES + 100 * (CHUNK + OVERHEAD_BYTES)
    with download(file, BlobHost(lambda request: _cut(request, blob[:cut]))) as attempt:
        with pytest.raises(ConnectionError):
            attempt.run(Ticket(BLOB, "t", len(blob)))
        assert attempt.received == 100 * CHUNK
        assert os.pread(attempt._descriptor, 200 * CHUNK, 0) == content[: 100 * CHUNK]


def _cut(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.send_response(206)
    request.end_headers()
    request.close_connection = True
    request.wfile.write(body)


def test_a_fresh_download_is_one_request_and_a_resumed_one_two() -> None:
    """The header of the blob comes with its chunks."""
    content = os.urandom(5 * CHUNK)
    file, blob = sealed_file(content)
    asked: list[int] = []

    def handle(request: BaseHTTPRequestHandler) -> None:
        asked.append(first_of(request))
        flood(request, blob[asked[-1] :])

    with download(file, BlobHost(handle)) as fresh:
        assert fresh.run(Ticket(BLOB, "t", len(blob)))
    with download(file, BlobHost(handle), part=content[: 2 * CHUNK + 5]) as resumed:
        assert resumed.run(Ticket(BLOB, "t", len(blob)))
    assert asked == [0, 0, HEADER_BYTES + 2 * (CHUNK + OVERHEAD_BYTES)]


@pytest.mark.parametrize("is_judging", [False, True])
def test_a_chunk_that_does_not_open_behind_others_lets_the_download_begin_again(is_judging: bool) -> None:
    """The earlier chunks may be the wrong ones, so no side is blamed, and none of them is kept."""
    content = os.urandom(5 * CHUNK)
    file, blob = sealed_file(content)
    with download(file, serve(blob), is_judging=is_judging, part=bytes(CHUNK)) as attempt:
        with pytest.raises(Unopened):
            attempt.run(Ticket(BLOB, "t", len(blob)))
        assert os.fstat(attempt._descriptor).st_size == 0


def test_a_broker_that_changes_a_byte_once_is_asked_again() -> None:
    """The blame waits for an attempt that hashes the blob."""
    file, blob = sealed_file(os.urandom(5 * CHUNK))
    wrong = bytearray(blob)
    wrong[len(blob) // 2] ^= 1
    ticket = Ticket(BLOB, "t", len(blob))
    with download(file, serve(bytes(wrong))) as first, pytest.raises(Unopened):
        first.run(ticket)
    with download(file, serve(blob), is_judging=True) as second:
        assert second.run(ticket)
    judged = download(file, serve(bytes(wrong)), is_judging=True)
    with judged as third, pytest.raises(ProtocolError, match="blob_changed"):
        third.run(ticket)


def test_a_judged_download_that_resumes_knows_the_hash_of_the_whole_blob() -> None:
    content = os.urandom(5 * CHUNK)
    file, blob = sealed_file(content)
    part = content[: 3 * CHUNK]
    with download(file, serve(blob), is_judging=True, part=part) as attempt:
        assert attempt.run(Ticket(BLOB, "t", len(blob)))
    lied = replace(file, blob_sha256="0" * 64)
    judged = download(lied, serve(blob), is_judging=True, part=part)
    with judged as attempt, pytest.raises(ProtocolError, match="file_wrong"):
        attempt.run(Ticket(BLOB, "t", len(blob)))
