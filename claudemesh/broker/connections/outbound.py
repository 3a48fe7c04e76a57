"""The outbound queue of one connection: frames that wait for its socket, bounded in number and in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from claudemesh.runtime.wake import Wake

# Deliveries are added below this bound only, so that a window of large messages is never in memory.
_ROOM_BYTES = 1 << 20


class OutboundQueue:
    """Frames on their way to one socket, in order.

    When the queue is full, `put` takes nothing and returns False; the caller closes the connection with 4005.
    `on_room` is called when there is room again for deliveries (backpressure).
    """

    def __init__(self, max_frames: int, max_bytes: int, on_room: Callable[[], None]) -> None:
        # Made for the first frame and dropped behind the last one: most connections are idle.
        self._frames: deque[str] | None = None
        self._bytes = 0
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._on_room = on_room
        self._wake = Wake()
        self._finished = False
        self._was_full = False
        self.writing = False
        self.taken = 0

    @property
    def has_room(self) -> bool:
        """Whether deliveries may be added: well below the bounds of `put`."""
        return self._bytes < _ROOM_BYTES and not self.is_crowded

    @property
    def is_crowded(self) -> bool:
        """Whether so many frames wait that reading from the peer should pause (backpressure)."""
        return self._frames is not None and len(self._frames) * 2 >= self._max_frames

    @property
    def idle(self) -> bool:
        """Whether no frame waits or is being written."""
        return not self._frames and not self.writing

    def put(self, frame: str) -> bool:
        """Append a frame. False: that would exceed a bound. After `finish` frames are dropped."""
        if self._finished:
            return True
        frames = self._frames
        if frames is None:
            frames = self._frames = deque()
        if len(frames) >= self._max_frames or self._bytes + len(frame) > self._max_bytes:
            return False
        frames.append(frame)
        self._bytes += len(frame)
        if not self.has_room:
            self._was_full = True
        self._wake.set()
        return True

    def finish(self, *, discard: bool) -> None:
        """Take nothing more; `discard` also drops the frames that wait."""
        self._finished = True
        if discard:
            self._frames = None
            self._bytes = 0
        self._wake.set()

    async def next(self) -> str | None:
        """Return the next frame, or None once finished and empty. For one writer only."""
        self.writing = False
        while not self._frames:
            if self._finished:
                return None
            self._wake.clear()
            self._frames = None
            await self._wake.wait()
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        self.writing = True
        self.taken += 1
        if self._was_full and self.has_room:
            self._was_full = False
            self._on_room()
        return frame
