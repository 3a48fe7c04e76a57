"""Everything passes the gate in order and in bounded steps, and abuse ends it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.runtime.gate import MEMBER, STRANGER, Gate, Pace
from tests.support.waiting import WAIT_S

_STEP = 64 << 10


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else bytes((0x80 | 126,)) + size.to_bytes(2, "big")
    return bytes(((0x80 if final else 0) | opcode,)) + length + bytes(4) + payload


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what is watched has no event of its own
            await asyncio.sleep(0)


class Behind:
    """The parser behind a gate: it records its input, and the gate's requests to the transport."""

    def __init__(self, pace: Pace = MEMBER) -> None:
        self.steps: list[bytes] = []
        self.reads: list[bool] = []
        self.abuses: list[str] = []
        self.gate = self.another()
        self.gate.pace(pace)
        self.gate.expect_frames()

    def another(self) -> Gate:
        return Gate(self.steps.append, self.reads.append, self.abuses.append, asyncio.get_running_loop())

    async def all(self, size: int) -> bytes:
        await until(lambda: sum(map(len, self.steps)) >= size)
        return b"".join(self.steps)


async def test_a_small_input_passes_at_once() -> None:
    behind, data = Behind(), frame(1, b"{}")
    behind.gate.received(data)
    assert behind.steps == [data]
    assert behind.reads == []


async def test_a_large_input_passes_in_steps_and_nothing_is_read_meanwhile() -> None:
    behind = Behind()
    data = frame(1, b"x" * 900) * 400
    behind.gate.received(data)
    assert behind.reads == [False]
    assert await behind.all(len(data)) == data
    assert max(map(len, behind.steps)) <= _STEP
    assert max(step.count(frame(1, b"x" * 900)[:8]) for step in behind.steps) <= 64
    await asyncio.sleep(0)
    assert behind.reads == [False, True]


async def test_a_long_body_passes_whole_as_it_was_read() -> None:
    """A piece of an upload is only copied. Behind the body, and before it, HTTP passes in short steps."""
    behind, data = Behind(), b"x" * 250_000
    behind.gate = behind.another()
    behind.gate.pace(MEMBER)
    behind.gate.widen(True)
    behind.gate.received(data)
    assert behind.steps == [data]
    behind.gate.widen(False)
    behind.gate.received(data)
    assert await behind.all(2 * len(data)) == 2 * data
    assert max(map(len, behind.steps[1:])) <= _STEP // 8


async def test_a_read_that_was_under_way_is_not_lost() -> None:
    behind = Behind()
    first, second = frame(1, b"a" * 700) * 200, frame(1, b"b" * 700) * 200
    behind.gate.received(first)
    behind.gate.received(second)
    assert await behind.all(len(first + second)) == first + second


async def test_what_the_parser_does_not_want_yet_waits() -> None:
    behind = Behind()
    data = frame(1, b"x" * 700) * 200
    behind.gate.hold(True)
    assert behind.reads == [False]
    behind.gate.hold(False)
    behind.gate.received(data)
    behind.gate.hold(True)
    passed = len(behind.steps)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(behind.steps) == passed
    behind.gate.hold(False)
    assert await behind.all(len(data)) == data


async def test_what_a_member_sent_before_it_went_is_passed_on() -> None:
    behind = Behind()
    data = frame(1, b"x" * 700) * 300
    behind.gate.received(data)
    behind.gate.drain()
    assert b"".join(behind.steps) == data


@pytest.mark.parametrize(
    ("pace", "data", "abuse"),
    [
        (MEMBER, frame(10) * 5000, "control_frames"),
        (MEMBER, frame(9, b"x" * 125) * 5000, "control_frames"),
        (MEMBER, frame(1) * 5000, "control_frames"),
        (MEMBER, frame(1, b"{", final=False) + frame(0, final=False) * 5000, "control_frames"),
        (MEMBER, frame(1, b"{", final=False) + frame(0, b" ", final=False) * 5000, "fragments"),
        (STRANGER, frame(10) * 40, "control_frames"),
        (STRANGER, frame(1, b"{}") * 65, "frames"),
        (STRANGER, frame(1, b"x" * 60_000) * 2, "bytes"),
    ],
)
async def test_abuse_ends_it(pace: Pace, data: bytes, abuse: str) -> None:
    """Few of the frames reach the parser, and nothing that comes later does."""
    behind = Behind(pace)
    behind.gate.received(data)
    await until(lambda: bool(behind.abuses))
    assert behind.abuses == [abuse]
    assert sum(map(len, behind.steps)) <= _STEP
    passed = list(behind.steps)
    behind.gate.received(data)
    assert behind.steps == passed


async def test_whoever_proves_who_it_is_gets_a_members_pace() -> None:
    behind = Behind(STRANGER)
    behind.gate.received(frame(1, b"{}") * 2)
    behind.gate.pace(MEMBER)
    data = frame(1, b"x" * 60_000)
    for _ in range(100):
        behind.gate.received(data)
        await asyncio.sleep(0)
    await behind.all(100 * len(data))
    assert behind.abuses == []


async def test_past_the_rate_nothing_is_read_for_a_while() -> None:
    behind = Behind(Pace(frames_per_s=100, frames_burst=64, light_per_s=1, light_burst=1))
    behind.gate.received(frame(1, b"{}") * 66)
    await asyncio.sleep(0)
    assert behind.reads == [False]
    await until(lambda: behind.reads == [False, True])
    assert behind.abuses == []


class Parser:
    """A parser that stops reading at each message, as the libraries do."""

    def __init__(self) -> None:
        self.gate: Any = None
        self.seen = b""

    def take(self, data: bytes) -> None:
        self.seen += data
        self.gate.hold(True)
        asyncio.get_running_loop().call_soon(self.gate.hold, False)


async def test_a_parser_that_stops_at_each_step_gets_everything() -> None:
    parser = Parser()
    gate = Gate(parser.take, lambda reads: None, lambda abuse: None, asyncio.get_running_loop())
    gate.pace(MEMBER)
    gate.expect_frames()
    parser.gate = gate
    data = frame(1, b"x" * 700) * 500
    gate.received(data)
    await until(lambda: len(parser.seen) >= len(data))
    assert parser.seen == data


HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


@given(st.lists(st.integers(1, len(HEAD) + 200), max_size=12))
def test_frames_are_counted_from_the_end_of_the_head_on(cuts: list[int]) -> None:
    """However the head and the frames behind it are cut."""

    async def counted() -> None:
        behind = Behind()
        gate = Gate(
            behind.steps.append, behind.reads.append, behind.abuses.append, asyncio.get_running_loop()
        )
        gate.pace(Pace(frames_per_s=1e6, frames_burst=1e6, light_per_s=1, light_burst=4.5))
        gate.expect_head(HEAD[:12])
        data = HEAD + frame(10) * 4 + frame(1, b"x" * 40) * 4
        edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
        for begin, end in itertools.pairwise(edges):
            gate.received(data[begin:end])
        assert await behind.all(len(data)) == data
        assert behind.abuses == []
        gate.received(frame(10))
        await until(lambda: behind.abuses == ["control_frames"])

    asyncio.run(counted())


async def test_another_answer_than_the_upgrade_holds_no_frames() -> None:
    behind = Behind()
    gate = behind.another()
    gate.expect_head(HEAD[:12])
    data = b"HTTP/1.1 200 OK\r\n\r\n" + frame(10) * 4000
    gate.received(data)
    assert await behind.all(len(data)) == data
    assert behind.abuses == []
