"""Gate between a transport and its parser: passes input on in bounded steps, counts it and limits its rate.

One turn of the event loop parses a bounded part of the input of a connection. The rest waits, and the
transport is not read meanwhile. WebSocket frames are counted by their heads before the parser sees them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from claudemesh.runtime.framescan import FrameScanner
from claudemesh.runtime.rate_limit import TokenBucket

Abuse: TypeAlias = Literal["bytes", "frames", "control_frames", "fragments", "chunks"]

# Bytes of one connection that one turn of the loop parses. The second is for HTTP, where a byte costs more.
# The third is for a long body, which is only copied: more than the event loop reads at a time.
_STEP_BYTES = 64 << 10
_STEP_HTTP_BYTES = 8 << 10
_STEP_BODY_BYTES = 256 << 10
_STEP_FRAMES = 64
# The library refuses a longer head, so nothing follows it.
_LONGEST_HEAD = 1 << 20
_HEAD_ENDS = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Pace:
    """Allowance of one connection after the upgrade. Above `frames_per_s` reading pauses; above another
    limit the connection ends."""

    frames_per_s: float
    frames_burst: float
    light_per_s: float  # control frames and empty ones
    light_burst: float
    bytes_per_s: float | None = None  # including HTTP
    frames: int | None = None  # total
    bytes: int | None = None  # total


# A member sends a frame for each message, and a pong every 20 s.
MEMBER = Pace(frames_per_s=20_000, frames_burst=40_000, light_per_s=10, light_burst=200)
# A sign-in takes two frames, the longest of 8 KiB.
STRANGER = Pace(
    frames_per_s=10,
    frames_burst=32,
    light_per_s=1,
    light_burst=16,
    bytes_per_s=1 << 20,
    frames=64,
    bytes=64 << 10,
)


class Gate:
    """The input path of one connection.

    `deliver` is the parser. `read` starts and stops the reading of the transport. `abuse` is called when a
    bound was exceeded, and later input is dropped. `slowed` is called for each pause for the pace. `hold`
    is the parser's own request to pause.
    """

    def __init__(
        self,
        deliver: Callable[[bytes], None],
        read: Callable[[bool], None],
        abuse: Callable[[Abuse], None],
        loop: asyncio.AbstractEventLoop,
        slowed: Callable[[], None] = lambda: None,
    ) -> None:
        self._deliver = deliver
        self._read = read
        self._abuse = abuse
        self._slowed = slowed
        self._loop = loop
        self._rest = b""
        self._at = 0
        self._owed_s = 0.0
        self._next: asyncio.Handle | None = None
        self._is_held = self._is_stopped = self._is_shut = False
        # Whether input passes unchecked: HTTP of an authenticated client.
        self._is_plain = False
        self._scanner: FrameScanner | None = None
        self._step_bytes = _STEP_HTTP_BYTES
        self._head_begins: bytes | None = None
        self._head = b""
        self.pace(STRANGER)

    def deliver_to(self, deliver: Callable[[bytes], None]) -> None:
        """Set another parser for the following input."""
        self._deliver = deliver

    def pace(self, pace: Pace) -> None:
        """Set another pace for the following input."""
        self._pace = pace
        self._frames = TokenBucket(pace.frames_per_s, pace.frames_burst)
        self._light = TokenBucket(pace.light_per_s, pace.light_burst)
        self._bytes = None if pace.bytes_per_s is None else TokenBucket(pace.bytes_per_s, pace.bytes_per_s)
        self._frames_in_all = self._bytes_in_all = 0
        self._set_plain()

    def widen(self, wide: bool) -> None:
        """Parse more bytes in one step: a body that is only copied costs little."""
        if self._scanner is None:
            self._step_bytes = _STEP_BODY_BYTES if wide else _STEP_HTTP_BYTES

    def expect_frames(self) -> None:
        """Count WebSocket frames from the next byte on."""
        self._scanner = FrameScanner()
        self._set_plain()
        self._step_bytes = _STEP_BYTES

    def expect_head(self, begins: bytes) -> None:
        """Count WebSocket frames from the end of the first head on, if it begins with these bytes."""
        self._head_begins = begins
        self._set_plain()

    @property
    def is_held(self) -> bool:
        """Whether the parser has asked for a pause."""
        return self._is_held

    def hold(self, held: bool) -> None:
        """Start or end a pause for the parser."""
        self._is_held = held
        self._settle()

    def owe(self, seconds: float) -> None:
        """Stop reading for this many seconds."""
        self._owed_s = max(self._owed_s, seconds)

    def received(self, data: bytes) -> None:
        """Take input that the transport has read."""
        if self._is_plain and len(data) <= _STEP_HTTP_BYTES and not self._rest:
            # Most requests: one step, and nothing to count.
            self._deliver(data)
            if self._owed_s > 0 or self._is_stopped:
                self._settle()
            return
        if self._is_shut:
            return
        if self._rest:
            # The transport had started this read before it was stopped.
            self._rest, self._at = self._rest[self._at :] + data, 0
            return
        self._step(data, 0)

    def drain(self) -> None:
        """Pass on the remaining input at once, because the connection has ended."""
        while self._rest and not self._is_shut:
            rest, at, self._rest, self._at = self._rest, self._at, b"", 0
            self._step(rest, at)
        self.shut()

    def shut(self) -> None:
        """Drop the remaining and all later input."""
        self._is_shut, self._is_plain = True, False
        self._rest = b""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _step(self, data: bytes, begin: int) -> None:
        size = len(data)
        end = size if size - begin <= self._step_bytes else begin + self._step_bytes
        if self._scanner is not None:
            end = self._scan(self._scanner, data, begin, end)
            if self._is_shut:
                return
        elif self._head_begins is not None:
            end = self._end_of_head(self._head_begins, data, begin, end)
        if begin == 0 and end == size:
            self._deliver(data)
        else:
            self._deliver(data[begin:end])
        if self._is_shut:
            return
        if self._bytes is not None:
            self._pause(self._bytes.spend(end - begin, self._loop.time()))
        if end < size:
            self._rest, self._at = data, end
        if self._rest or self._owed_s > 0 or self._is_stopped:
            self._settle()

    def _end_of_head(self, begins: bytes, data: bytes, begin: int, end: int) -> int:
        """Return the end of this step: at most the end of the head, because frames may follow it."""
        before = len(self._head)
        self._head += data[begin:end]
        if not self._head.startswith(begins[: len(self._head)]) or before > _LONGEST_HEAD:
            self._head_begins, self._head = None, b""
            return end
        found = self._head.find(_HEAD_ENDS, max(0, before - len(_HEAD_ENDS)))
        if found < 0:
            return end
        self._head_begins, self._head = None, b""
        self.expect_frames()
        return begin + found + len(_HEAD_ENDS) - before

    def _scan(self, scanner: FrameScanner, data: bytes, begin: int, end: int) -> int:
        """Count the frames of this step; return where it ends."""
        frames, light = scanner.frames, scanner.light
        end = scanner.scan(data, begin, end, _STEP_FRAMES)
        frames, light = scanner.frames - frames, scanner.light - light
        pace, now = self._pace, self._loop.time()
        if light and self._light.spend(light, now):
            self._end("control_frames")
        elif scanner.is_splintered:
            self._end("fragments")
        elif pace.frames is not None or pace.bytes is not None:
            self._count(pace, frames, end - begin)
        self._pause(self._frames.spend(frames, now))
        return end

    def _pause(self, seconds: float) -> None:
        if seconds:
            self._owed_s = max(self._owed_s, seconds)
            self._slowed()

    def _set_plain(self) -> None:
        is_looked_for = self._scanner is not None or self._head_begins is not None
        self._is_plain = not (is_looked_for or self._is_shut or self._bytes is not None)

    def _count(self, pace: Pace, frames: int, size: int) -> None:
        self._frames_in_all += frames
        self._bytes_in_all += size
        if pace.frames is not None and self._frames_in_all > pace.frames:
            self._end("frames")
        elif pace.bytes is not None and self._bytes_in_all > pace.bytes:
            self._end("bytes")

    def _end(self, abuse: Abuse) -> None:
        self.shut()
        self._abuse(abuse)

    def _settle(self) -> None:
        """Stop or continue reading the transport, and schedule the turn that passes on waiting input."""
        if self._is_shut:
            return
        waits = bool(self._rest) or self._owed_s > 0
        if (waits or self._is_held) != self._is_stopped:
            self._is_stopped = not self._is_stopped
            self._read(not self._is_stopped)
        if waits and not self._is_held and self._next is None:
            if self._owed_s > 0:
                self._next = self._loop.call_later(self._owed_s, self._go_on)
            else:
                self._next = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._next = None
        self._owed_s = 0.0
        if self._is_held or self._is_shut:
            return
        if self._rest:
            rest, at, self._rest, self._at = self._rest, self._at, b"", 0
            self._step(rest, at)
        else:
            self._settle()
