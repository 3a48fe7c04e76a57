"""The Python SDK beside plain HTTP: `program.py send SOCKET TO COUNT`, `program.py stream SOCKET COUNT`,
`program.py callers SOCKET TO COUNT CALLERS`.

`send` prints the median milliseconds of a send by the SDK and by http.client, taken in turn. `stream` prints
the seconds in which the messages of the inbox were received. `callers` prints the sends a second of many
tasks with one `AsyncDaemon`.
"""

import asyncio
import http.client
import json
import socket
import statistics
import sys
import time
import uuid
from pathlib import Path

from claudemesh_sdk import AsyncDaemon, Daemon

TEXT = "x" * 1024


class Plain(http.client.HTTPConnection):
    """A kept connection to the socket."""

    def connect(self) -> None:
        """Connect to the path that is the host's name."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.host)

    def post(self, to: str) -> None:
        """Send a message."""
        body = {"to": to, "message": TEXT, "client_message_id": uuid.uuid4().hex}
        headers = {"Host": "localhost", "Content-Type": "application/json"}
        self.request("POST", "/v1/send", json.dumps(body), headers)
        answer = self.getresponse()
        assert json.loads(answer.read())["status"] and answer.status == 202


def send(path: str, to: str, count: int) -> None:
    """Compare sends."""
    plain = Plain(path)
    plain.connect()
    times: tuple[list[float], list[float]] = ([], [])
    with Daemon(socket_path=Path(path)) as daemon:
        for _ in range(count):
            for kept, call in zip(
                times, (lambda: daemon.send(to, TEXT), lambda: plain.post(to)), strict=True
            ):
                started = time.perf_counter()
                call()
                kept.append(time.perf_counter() - started)
    plain.close()
    print(*(statistics.median(kept[1:] or kept) * 1000 for kept in times))


def stream(path: str, count: int) -> None:
    """Receive the messages of the inbox."""
    with Daemon(socket_path=Path(path)) as daemon:
        daemon.health()
        started, last = time.perf_counter(), 0
        for number, message in enumerate(daemon.messages(since=0), 1):
            assert message.seq > last
            last = message.seq
            if number == count:
                break
        print(time.perf_counter() - started)


async def callers(path: str, to: str, count: int, tasks: int) -> None:
    """Let many tasks send, each one message after the other."""
    async with AsyncDaemon(socket_path=Path(path)) as daemon:
        await daemon.send(to, TEXT)

        async def call() -> None:
            for _ in range(count // tasks):
                await daemon.send(to, TEXT)

        started = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(tasks)))
        print(count // tasks * tasks / (time.perf_counter() - started))


if __name__ == "__main__":
    if sys.argv[1] == "callers":
        asyncio.run(callers(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
    elif sys.argv[1] == "send":
        send(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        stream(sys.argv[2], int(sys.argv[3]))
