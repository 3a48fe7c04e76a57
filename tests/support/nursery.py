"""Processes of claudemesh that are forked from one that has imported everything.

Importing takes most of the processor time of a start, and the tests start thousands of processes. Each child
is a process of its own, with its own memory, files, signals and exit code. Only the start of an interpreter
is left out, and the deallocation of its objects at the end. Starts as a user makes them are tested in
tests/artefact and tests/integration/cli.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tests.support.faketime import SETTINGS, is_fake
from tests.support.pyz import REPOSITORY

# Variables that take effect before Python runs any code.
_DECIDED_EARLY = ("PYTHON", "LD_", "LC_", "LANG")
_PRELOAD = "LD_PRELOAD"
_LARGEST = 1 << 20


class Child:
    """A forked process, with the part of `subprocess.Popen` that the tests use."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery
        self._ended = os.pidfd_open(pid)
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """The exit code, minus the number of the signal that ended it, or None while it runs."""
        with self._lock:
            if self.returncode is None and select.select([self._ended], [], [], 0)[0]:
                self.returncode = self._nursery.reap(self.pid)
                os.close(self._ended)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended. `subprocess.TimeoutExpired`: it has not."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired("claudemesh", timeout or 0)
            select.select([self._ended], [], [], left)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks, made at the first request. It has these variables too."""

    def __init__(self, **variables: str) -> None:
        self._variables = variables
        self._lock = threading.Lock()
        self._link: socket.socket | None = None

    def spawn(
        self, program: str, arguments: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]
    ) -> Child:
        """Start a program with these three standard streams, in the checkout.

        The program is `armed` or `cli`, or `code`, which runs its argument.
        """
        request = {"program": program, "arguments": [*arguments], "environment": {**environment}}
        return Child(self, self._ask(request, streams))

    def run(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        timeout_s: float,
        stdin: bytes = b"",
        program: str = "cli",
    ) -> tuple[int, str, str]:
        """Run a command to its end; return its exit code, standard output and standard error."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
            with _pipe_of(stdin) as given:
                streams = [given, out.fileno(), error.fileno()]
                process = self.spawn(program, arguments, environment, streams)
                try:
                    code = process.wait(timeout_s)
                finally:
                    process.kill()
            out.seek(0)
            error.seek(0)
            return code, out.read().decode(), error.read().decode()

    def reap(self, pid: int) -> int:
        """Return the exit code of a child that has ended."""
        return self._ask({"reap": pid})

    def _ask(self, request: Mapping[str, Any], streams: Sequence[int] = ()) -> int:
        with self._lock:
            link = self._link = self._link or self._begin()
            socket.send_fds(link, [json.dumps(request).encode()], [*streams])
            answer = link.recv(64)
        assert answer, "the process that forks has ended"
        return int(answer)

    def _begin(self) -> socket.socket:
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST)
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.nursery", str(theirs.fileno())],
                cwd=REPOSITORY,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **self._variables},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

        def end() -> None:
            link.close()
            process.wait()

        atexit.register(end)
        return link


@contextmanager
def _pipe_of(data: bytes) -> Generator[int]:
    """The reading end of a pipe that holds these bytes, and then its end."""
    reading, writing = os.pipe()

    def write() -> None:
        # The command may end before it has read everything.
        with suppress(BrokenPipeError), open(writing, "wb") as pipe:
            pipe.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield reading
    finally:
        os.close(reading)
        writer.join()


def nursery_for(environment: Mapping[str, str]) -> Nursery | None:
    """Return the nursery whose children are the same as processes started under these variables, if any is.

    Processes with fake clocks have one of their own. Each of them reads the clock that its variables name.
    """
    decided = {key: value for key, value in environment.items() if key.startswith(_DECIDED_EARLY)}
    here = {key: value for key, value in os.environ.items() if key.startswith(_DECIDED_EARLY)}
    preloaded = decided.get(_PRELOAD)
    if preloaded == here.get(_PRELOAD):
        nursery = _NURSERY
    elif preloaded is not None and is_fake(preloaded):
        here[_PRELOAD] = preloaded
        nursery = _FAKED.setdefault(preloaded, Nursery(**{_PRELOAD: preloaded}, **SETTINGS))
    else:
        return None
    is_same = decided == {**here, "PYTHONPATH": str(REPOSITORY)}
    return nursery if is_same and hasattr(os, "pidfd_open") else None


_NURSERY = Nursery()
_FAKED: dict[str, Nursery] = {}


def serve(link: socket.socket) -> dict[str, Any] | None:
    """Fork a child for each request. Returns the request in the child, and None after the last one."""
    while True:
        data, streams, _, _ = socket.recv_fds(link, _LARGEST, 3)
        if not data:
            return None
        request: dict[str, Any] = json.loads(data)
        if "reap" in request:
            _, status = os.waitpid(request["reap"], 0)
            link.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if pid == 0:
            link.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            for stream in streams:
                os.close(stream)
            return request
        for stream in streams:
            os.close(stream)
        link.send(str(pid).encode())


def _import_everything() -> None:
    import claudemesh

    for module in pkgutil.walk_packages(claudemesh.__path__, "claudemesh."):
        importlib.import_module(module.name)


def _end(program: Callable[[], int]) -> int:
    """Run a program, and end as the interpreter does, but leave its objects as they are.

    Their deallocation alone copies each page of the process that forked. Returns the code when the
    interpreter has to end the process itself.
    """
    try:
        code = program()
    except SystemExit as request:
        if not isinstance(request.code, int):
            raise
        code = request.code
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    # An output that takes nothing more gives the exit code of the interpreter for it.
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def main() -> int:
    """Import everything, serve, and in each child run what was asked for."""
    from claudemesh import __main__ as program
    from tests.support import armed

    _import_everything()
    # Ctrl-C is for the children: this process ends with the one that asks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is None:
        return 0
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.argv = ["claudemesh", *request["arguments"]]

    def code() -> int:
        exec(sys.argv[1])
        return 0

    programs = {"armed": armed.run, "cli": program.main, "code": code}
    return _end(programs[request["program"]])


if __name__ == "__main__":
    sys.exit(main())
