"""Downloads from a broker that lies: bounded, and no side is blamed for a connection that has ended."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from claudemesh.daemon.files.download import Download, Ticket
from claudemesh.protocol.attachments import Attachment
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.filestream import HEADER_BYTES
from tests.support.blob_host import BlobHost
from tests.support.sealed_files import CHUNK, sealed_file

BLOB = "0" * 32


@contextmanager
def download(file: Attachment, host: BlobHost) -> Generator[Download]:
    """A download from this broker into a file without a name."""
    with host, tempfile.TemporaryFile() as part:
        yield Download(file, part.fileno(), host.server(), lambda: False)


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
    with download(file, BlobHost(lambda request: flood(request, wrong[first_of(request) :]))) as attempt:
        with pytest.raises(ProtocolError) as caught:
            attempt.run(Ticket(BLOB, "t", len(blob)))
        assert caught.value.code == "blob_changed"


def test_a_connection_that_ends_before_the_fault_is_known_blames_no_side() -> None:
    """The hash of the whole blob tells, and not all of it was read."""
    file, blob = sealed_file(os.urandom(5 * CHUNK))
    wrong = bytearray(blob)
    wrong[HEADER_BYTES] ^= 1

    def cut(request: BaseHTTPRequestHandler) -> None:
        first = first_of(request)
        request.send_response(206)
        request.end_headers()
        request.close_connection = True
        request.wfile.write(wrong[first:] if first == 0 else wrong[first : 3 * CHUNK])

    with download(file, BlobHost(cut)) as attempt, pytest.raises(ConnectionError):
        attempt.run(Ticket(BLOB, "t", len(blob)))
