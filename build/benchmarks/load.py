"""Many callers of one socket: `load.py SOCKET CALLERS TOTAL`, the request on stdin; prints requests/s."""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop


async def call(path: str, request: bytes, times: int) -> None:
    """One connection, one request after the other."""
    reader, writer = await asyncio.open_unix_connection(path)
    for _ in range(times):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 202 " in head[:16], head
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
    writer.close()


async def main(path: str, callers: int, total: int) -> None:
    """Start every caller at once."""
    request = sys.stdin.buffer.read()
    started = time.perf_counter()
    await asyncio.gather(*(call(path, request, total // callers) for _ in range(callers)))
    print(total // callers * callers / (time.perf_counter() - started))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
