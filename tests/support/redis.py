"""A Redis (or Valkey) of the tests' own: on a unix socket, in a temporary folder, nothing kept."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import until
from tests.support.waiting import WAIT_S


class RedisServer:
    """One server process, to be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        assert program, "the tests need a Redis server (Debian: apt-get install redis-server)"
        self._command = [program, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder)]
        self._command += ["--save", "", "--appendonly", "no"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return when it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._answers, "Redis answers")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(WAIT_S)
            link.connect(str(self.socket))
            link.sendall(b"PING\r\n")
            return link.recv(7) == b"+PONG\r\n"

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.socket.unlink(missing_ok=True)


@contextmanager
def redis_server() -> Generator[RedisServer]:
    """A server that runs."""
    folder = Path(tempfile.mkdtemp(prefix="cm-redis-"))
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
