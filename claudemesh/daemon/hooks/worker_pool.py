"""Worker pool for hooks: starts the fork server at the first run, and passes runs to its workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from claudemesh.daemon.hooks import fork_server
from claudemesh.runtime.children import spawn
from claudemesh.runtime.logs import get_logger

log = get_logger("hooks")

Network: TypeAlias = Literal["deny", "allow"]

_LENGTH = struct.Struct("!I")
_HELLO_S = 10.0
_GRACE_MS = 5000
STDERR_LIMIT = 64 << 10


class ForkServerLost(Exception):
    """The fork server has ended or could not be started. The hook may have run."""


class Command(Struct, frozen=True):
    """A run of a hook: command, environment, input, time limit in seconds, and limits of the kept output in
    bytes."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    stdin: bytes
    timeout_s: float
    stdout_limit: int
    killpg: bool = True


class HookOutcome(Struct, frozen=True):
    """Outcome of a hook: an exit code, a signal, or not started (`error`)."""

    exit: int | None = None
    signal: int | None = None
    timed_out: bool = False
    survivors: int = 0
    duration_ms: float = 0.0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    error: str | None = None

    @property
    def word(self) -> str:
        """The outcome as a label of a metric: the exit code, `timeout`, `signal`, or `not_started`."""
        if self.error is not None:
            return "not_started"
        if self.timed_out:
            return "timeout"
        return "signal" if self.exit is None else str(self.exit)


class Isolation(Struct, frozen=True):
    """Isolation that the kernel allowed."""

    pid_namespace: bool
    network_namespace: bool


class WorkerPool:
    """Up to `size` workers with the same network policy. They are started when they are needed."""

    def __init__(self, network: Network, size: int, isolation: str = "auto") -> None:
        self._network = network
        self._wanted = isolation
        self._slots = asyncio.Semaphore(size)
        self._idle: list[_Worker] = []
        self._starting = asyncio.Lock()
        self._fork_server: _ForkServer | None = None

    @property
    def pid(self) -> int | None:
        """The process of which every hook of these workers is a descendant."""
        return None if self._fork_server is None else self._fork_server.pid

    async def isolation(self) -> Isolation:
        """Return the isolation that the kernel allows. Raise `ForkServerLost` when no hook can run."""
        return (await self._ready()).isolation

    async def run(self, command: Command) -> HookOutcome:
        """Run a hook to its end. Raise `ForkServerLost`. A cancelled run is ended with all its processes."""
        async with self._slots:
            server = await self._ready()
            worker = self._idle.pop() if self._idle else await server.worker()
            try:
                outcome = await worker.run(command)
            except BaseException as error:
                worker.close()
                if isinstance(error, (OSError, EOFError)):
                    raise ForkServerLost("the fork server of a hook has ended") from error
                raise
            self._idle.append(worker)
            return outcome

    def close(self) -> None:
        """Close the sockets of all workers, which then end their hooks."""
        for worker in self._idle:
            worker.close()
        self._idle.clear()
        if self._fork_server is not None:
            self._fork_server.close()
            self._fork_server = None

    async def _ready(self) -> _ForkServer:
        async with self._starting:
            if self._fork_server is not None and not self._fork_server.alive:
                log.error("hook_fork_server_lost", network=self._network)
                self.close()
            if self._fork_server is None:
                self._fork_server = await _ForkServer.start(self._network, self._wanted)
            return self._fork_server


class _ForkServer:
    """One fork server process."""

    def __init__(
        self, process: subprocess.Popen[bytes], control: socket.socket, isolation: Isolation
    ) -> None:
        self._process = process
        self._control = control
        self.isolation = isolation

    @classmethod
    async def start(cls, network: Network, isolation: str) -> _ForkServer:
        """Start the process and read the isolation that it reached. Raise `ForkServerLost`."""
        ours, theirs = socket.socketpair()
        # A session of its own: an interrupt from the terminal reaches only the daemon, which ends its
        # hooks.
        arguments = [sys.executable, "-I", "-S", str(fork_server.__file__), network, isolation]
        try:
            with theirs:
                # Spawning blocks for a millisecond, once. asyncio's function would watch children
                # permanently.
                process = spawn(arguments, stdin=theirs.fileno(), env={}, start_new_session=True)
        except OSError as error:
            ours.close()
            raise ForkServerLost(f"the fork server of hooks cannot start: {error}") from error
        ours.setblocking(False)
        try:
            async with asyncio.timeout(_HELLO_S):
                hello = json.loads(await _receive(ours))
        except (OSError, EOFError, TimeoutError) as error:
            process.kill()
            process.wait()
            ours.close()
            raise ForkServerLost("the fork server of hooks does not answer") from error
        log.info("hook_fork_server_started", network=network, **hello)
        return cls(process, ours, Isolation(**hello))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    async def worker(self) -> _Worker:
        """Request a new worker."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self._control, [b"w"], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise ForkServerLost("the fork server of hooks has ended") from error
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 20)
        return _Worker(reader, writer)

    def close(self) -> None:
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
            return
        self._process.kill()
        self._process.wait()


class _Worker:
    """One connection to one worker; one run at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def run(self, command: Command) -> HookOutcome:
        header = {
            "argv": list(command.argv),
            "env": dict(command.env),
            "cwd": command.cwd,
            "stdin": len(command.stdin),
            "timeout_ms": round(command.timeout_s * 1000),
            "grace_ms": _GRACE_MS,
            "killpg": command.killpg,
            "stdout_limit": command.stdout_limit,
            "stderr_limit": STDERR_LIMIT,
        }
        raw = json.dumps(header).encode()
        self._writer.write(_LENGTH.pack(len(raw)) + raw + command.stdin)
        await self._writer.drain()
        size = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))[0]
        found: dict[str, Any] = json.loads(await self._reader.readexactly(size))
        kept = await self._reader.readexactly(found.pop("stdout") + found["stderr"])
        stderr_size = found.pop("stderr")
        split = len(kept) - stderr_size
        return HookOutcome(**found, stdout=kept[:split], stderr=kept[split:])

    def close(self) -> None:
        self._writer.close()


async def _receive(connection: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    raw = b""
    while len(raw) < _LENGTH.size or len(raw) < _LENGTH.size + _LENGTH.unpack(raw[: _LENGTH.size])[0]:
        part = await loop.sock_recv(connection, 4096)
        if not part:
            raise EOFError
        raw += part
    return raw[_LENGTH.size :]
