"""Event bus: fan-out of events to all open streams. A stream that falls behind is ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

STREAM_LIMIT = 1024


@dataclass(slots=True)
class BusEvent:
    """One event. `id` is the inbox seq of a message, and None for any other event.

    `spelt` caches the encoded event, so that every listener gets the same bytes.
    """

    event: str
    data: Mapping[str, Any]
    id: str | None = None
    spelt: bytes | None = field(default=None, compare=False, repr=False)


class Stream:
    """The events of one listener. With more than `STREAM_LIMIT` waiting it is `lagged` and ends."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._events: deque[BusEvent] = deque()
        self._ready = asyncio.Event()
        self.lagged = False
        self.closed = False

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the stream."""
        self.closed = True
        self._bus.leave(self)
        self._ready.set()

    def push(self, event: BusEvent) -> None:
        """Queue an event, or end the stream when too many wait."""
        if len(self._events) >= STREAM_LIMIT:
            self.lagged = True
            self.close()
            return
        self._events.append(event)
        self._ready.set()

    async def next(self, timeout_s: float) -> BusEvent | None:
        """Return the next event, or None after `timeout_s`. Raise `StopAsyncIteration` at the end."""
        try:
            async with asyncio.timeout(timeout_s):
                return await anext(self)
        except TimeoutError:
            return None

    async def waiting(self) -> list[BusEvent]:
        """Wait for an event and return all that are queued. Raise `StopAsyncIteration` at the end."""
        first = await anext(self)
        events = [first, *self._events]
        self._events.clear()
        return events

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> BusEvent:
        """Return the next event. The iteration ends when the stream is closed or has fallen behind."""
        while not self._events or self.lagged:
            if self.closed:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        return self._events.popleft()


class Bus:
    """Publishes to every stream that is open."""

    def __init__(self) -> None:
        self._streams: set[Stream] = set()
        self._closed = False

    @property
    def followers(self) -> int:
        """The number of open streams."""
        return len(self._streams)

    def subscribe(self) -> Stream:
        """Open a stream of the events published from now on. After `close` the stream has ended already."""
        stream = Stream(self)
        self._streams.add(stream)
        if self._closed:
            stream.close()
        return stream

    def leave(self, stream: Stream) -> None:
        """Remove a stream."""
        self._streams.discard(stream)

    def publish(self, events: Iterable[BusEvent]) -> None:
        """Queue events on every stream, in this order."""
        if not self._streams:
            return
        for event in events:
            for stream in tuple(self._streams):
                stream.push(event)

    def close(self) -> None:
        """End every stream, also those opened later."""
        self._closed = True
        for stream in tuple(self._streams):
            stream.close()
