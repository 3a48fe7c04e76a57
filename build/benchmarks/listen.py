"""Readers of one daemon's events: `listen.py SOCKET READERS MESSAGES`.

Prints `ready`, then the seconds from the first message that any of them saw to the last that all have.
"""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop

_REQUEST = b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
_MARK = b"event: message"


async def read(path: str, messages: int, ready: asyncio.Semaphore) -> tuple[float, float]:
    """One reader: when its first and its last message came."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
    writer.write(_REQUEST)
    rest = await reader.readuntil(b": live")
    ready.release()
    seen, first, rest = 0, 0.0, b""
    while seen < messages:
        data = rest + await reader.read(1 << 18)
        seen += data.count(_MARK)
        first = first or (time.perf_counter() if seen else 0.0)
        # Input that may be the beginning of a mark that was cut.
        rest = data[-len(_MARK) + 1 :] if not data.endswith(_MARK) else b""
    writer.close()
    return first, time.perf_counter()


async def main(path: str, readers: int, messages: int) -> None:
    """All of them at once."""
    ready = asyncio.Semaphore(0)
    reading = [asyncio.create_task(read(path, messages, ready)) for _ in range(readers)]
    for _ in range(readers):
        await ready.acquire()
    print("ready", flush=True)
    times = await asyncio.gather(*reading)
    print(max(last for _, last in times) - min(first for first, _ in times), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
