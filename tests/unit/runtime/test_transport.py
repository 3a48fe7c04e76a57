"""Small writes of one turn of the loop leave together, in order, and never after the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from claudemesh.runtime.transport import JoinedWrites


class Recorder:
    """The transport below: what reached it."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("close")
        self.closing = True

    def write_eof(self) -> None:
        self.calls.append("eof")

    def abort(self) -> None:
        self.calls.append("abort")
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing


def joined(below: Recorder) -> JoinedWrites:
    """The transport under test."""
    return JoinedWrites(below, asyncio.get_running_loop())  # type: ignore[arg-type]


async def test_writes_of_one_turn_leave_as_one() -> None:
    """Head and body, frame and frame."""
    below = Recorder()
    transport = joined(below)
    for piece in (b"head", b"", b"body"):
        transport.write(piece)
    assert below.calls == []
    await asyncio.sleep(0)
    assert below.calls == [b"headbody"]
    transport.write(b"next turn")
    await asyncio.sleep(0)
    assert below.calls == [b"headbody", b"next turn"]


@pytest.mark.parametrize(("ending", "expected"), [("close", "close"), ("write_eof", "eof")])
async def test_an_orderly_end_comes_behind_what_waits(ending: str, expected: str) -> None:
    """Nothing that was written is dropped by a close."""
    below = Recorder()
    transport = joined(below)
    transport.write(b"last words")
    getattr(transport, ending)()
    await asyncio.sleep(0)
    assert below.calls == [b"last words", expected]


async def test_nothing_is_written_after_an_abort() -> None:
    """Waiting bytes are dropped with the connection."""
    below = Recorder()
    transport = joined(below)
    transport.write(b"too late")
    transport.abort()
    await asyncio.sleep(0)
    assert below.calls == ["abort"]


async def test_much_does_not_wait_for_the_turn_to_end() -> None:
    """64 KiB are handed on at once, so that the kernel's pushback is felt."""
    below = Recorder()
    transport = joined(below)
    for _ in range(3):
        transport.write(bytes(32 << 10))
    assert [len(call) for call in below.calls] == [64 << 10]
    await asyncio.sleep(0)
    assert [len(call) for call in below.calls] == [64 << 10, 32 << 10]
