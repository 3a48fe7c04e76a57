"""A file from one daemon to the other, through an embedded broker, and messages meanwhile."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from http.client import HTTPResponse
from pathlib import Path

from benchmarks.lab import Caller, Lab, median_ms, send_request
from benchmarks.size import size
from claudemesh.protocol.filestream import CHUNK_BYTES, StreamSealer
from tests.support.processes import Process

_SIZE = size(256 << 20, 3 << 20)
_MIB = 1 << 20
_QUIET_SENDS = size(100, 3)
_PAUSE_S = 0.02


def rate(lab: Lab) -> tuple[float, float]:
    """Share to fetched, in MiB/s. The ceiling: cp, SHA-256 and secretstream of it in one process, synced.

    The files of the exchange stay until the ceiling is measured. A virtual machine gives free memory back to
    its host, so the pages that one of them has just freed would be cheaper for the other.
    """
    with _source() as source, _exchanged(lab, source) as taken_s:
        return _SIZE / _MIB / taken_s, _SIZE / _MIB / _alone_s(source)


def rate_alone(lab: Lab) -> float:
    """Share to fetched, in MiB/s."""
    with _source() as source, _exchanged(lab, source) as taken_s:
        return _SIZE / _MIB / taken_s


def memory(lab: Lab) -> tuple[float, float]:
    """Growth of the process that grows most, against 16 MiB."""
    return memory_alone(lab), 16.0


def memory_alone(lab: Lab) -> float:
    """Growth of the process that grows most, in MiB."""
    processes = (lab.alice, lab.bob, lab.live.broker)
    before = [_resident_mib(process) for process in processes]
    most = [0.0]

    def look() -> None:
        now = [_resident_mib(process) for process in processes]
        most[0] = max(most[0], *(after - first for after, first in zip(now, before, strict=True)))

    with _source() as source, _meanwhile(look), _exchanged(lab, source):
        pass
    return most[0]


def latency(lab: Lab) -> tuple[float, float]:
    """A send during the exchange, until it is accepted, in milliseconds, against one before it."""
    request = send_request("bob")
    with Caller(lab.alice) as caller:
        quiet = [caller.timed(request) for _ in range(_QUIET_SENDS)]
    return latency_alone(lab), median_ms(quiet)


def latency_alone(lab: Lab) -> float:
    """A send during the exchange, until it is accepted, in milliseconds."""
    request = send_request("bob")
    during: list[float] = []
    with (
        Caller(lab.alice) as caller,
        _source() as source,
        _meanwhile(lambda: during.append(caller.timed(request))),
        _exchanged(lab, source),
    ):
        pass
    return median_ms(during)


@contextmanager
def _source() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="cm-bench-") as folder:
        source = Path(folder) / "source"
        with source.open("wb") as file:
            for _ in range(_SIZE // _MIB):
                file.write(os.urandom(_MIB))
        yield source


@contextmanager
def _meanwhile(act: Callable[[], object]) -> Generator[None]:
    """Do something again and again on another thread."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(_PAUSE_S):
            act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _exchanged(lab: Lab, source: Path) -> Generator[float]:
    """Share a file and fetch it; yield the seconds. Its copies are deleted at the end."""
    target = source.with_name(f"fetched-{time.monotonic_ns()}")
    with closing(lab.bob.connection()) as connection:
        # Bob's events: a program that asks again and again would take a tenth of the cores from the exchange.
        connection.request("GET", "/v1/events")
        events = connection.getresponse()
        started = time.perf_counter()
        status, shared = lab.alice.request("POST", "/v1/file/share", {"path": str(source), "to": "bob"})
        assert status == 202, shared
        _await_announcement(events, shared["file_id"])
    status = 202
    while status == 202:
        body = {"id": shared["file_id"], "out": str(target)}
        status, answer = lab.bob.request("POST", "/v1/file/get", body)
    taken_s = time.perf_counter() - started
    assert status == 200, answer
    yield taken_s
    target.unlink()
    lab.alice.request("POST", "/v1/file/delete", {"id": shared["file_id"]})


def _await_announcement(events: HTTPResponse, file_id: str) -> None:
    """Read events until the one of the message that announces the file."""
    while line := events.readline():
        if line.startswith(b"data: ") and file_id.encode() in line:
            return
    raise AssertionError("the events have ended")


def _alone_s(source: Path) -> float:
    started = time.perf_counter()
    shutil.copyfile(source, source.with_name("copy"))
    hashed, sealer = hashlib.sha256(), StreamSealer(bytes(32))
    with source.open("rb") as file, source.with_name("sealed").open("wb") as sealed:
        while chunk := file.read(CHUNK_BYTES):
            hashed.update(chunk)
            sealed.write(sealer.seal(chunk, is_last=False))
        sealed.flush()
        os.fsync(sealed.fileno())
    return time.perf_counter() - started


def _resident_mib(process: Process) -> float:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no resident memory")
