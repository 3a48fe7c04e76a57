"""Processes of claudemesh that are forked from one that has imported everything.

Importing takes most of the processor time of a start, and the tests start thousands of processes. Each child
is a process of its own, with its own memory, files, signals and exit code. Only the start of an interpreter
is left out, and the deallocation of its objects at the end. A command that starts a service in the background
has it forked too. Starts as a user makes them are tested in tests/artefact and in tests/integration/cli.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO, Any

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

    def __init__(self, variables: Mapping[str, str] | None = None, link: socket.socket | None = None) -> None:
        self._variables = variables
        self._lock = threading.Lock()
        self._link = link

    def spawn(
        self,
        program: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        streams: Sequence[int],
        *,
        in_session: bool = False,
    ) -> Child:
        """Start a program with these three standard streams, in the checkout.

        The program is `armed` or `cli`, or `code`, which runs its argument. `in_session`: it leads a session.
        """
        request = {
            "program": program,
            "arguments": [*arguments],
            "environment": {**environment},
            "in_session": in_session,
        }
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
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(self._variables or {})},
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
        nursery = _FAKED.setdefault(preloaded, Nursery({_PRELOAD: preloaded, **SETTINGS}))
    else:
        return None
    is_same = decided == {**here, "PYTHONPATH": str(REPOSITORY)}
    return nursery if is_same and hasattr(os, "pidfd_open") else None


_NURSERY = Nursery()
_FAKED: dict[str, Nursery] = {}


class _Server:
    """The process that forks. It serves the test run, and each child, by a link of its own."""

    def __init__(self, link: socket.socket) -> None:
        self._first = link
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(link, selectors.EVENT_READ, self._serve)
        # The children of each link. Those of a link that has ended are waited for here.
        self._of: dict[socket.socket, set[int]] = {}

    def run(self) -> dict[str, Any] | None:
        """Fork a child for each request. Returns the request in the child, and None after the last one."""
        while self._first.fileno() >= 0:
            for key, _ in self._waiting.select():
                request: dict[str, Any] | None = key.data(key.fileobj)
                if request is not None:
                    return request
        return None

    def _serve(self, link: socket.socket) -> dict[str, Any] | None:
        try:
            data, streams, _, _ = socket.recv_fds(link, _LARGEST, 3)
        except ConnectionResetError:
            # Killed before it read an answer.
            data, streams = b"", []
        if not data:
            self._leave(link)
            return None
        request: dict[str, Any] = json.loads(data)
        if "reap" in request:
            _answer(link, self._reap(link, request["reap"]))
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            self._close(ours)
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            for stream in streams:
                os.close(stream)
            return request | {"link": theirs}
        theirs.close()
        self._waiting.register(ours, selectors.EVENT_READ, self._serve)
        self._of.setdefault(link, set()).add(pid)
        for stream in streams:
            os.close(stream)
        _answer(link, pid)
        return None

    def _reap(self, link: socket.socket, pid: int) -> int:
        self._of[link].discard(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _leave(self, link: socket.socket) -> None:
        """Wait for the children that a process has left, each when it ends, as the first process does."""
        self._waiting.unregister(link)
        link.close()
        for pid in self._of.pop(link, ()):
            self._waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, partial(self._bury, pid))

    def _bury(self, pid: int, ended: int) -> None:
        self._waiting.unregister(ended)
        os.close(ended)
        os.waitpid(pid, 0)

    def _close(self, ours: socket.socket) -> None:
        """Close the descriptors of this process, in a child."""
        ours.close()
        for key in [*self._waiting.get_map().values()]:
            os.close(key.fd)
        self._waiting.close()


def _answer(link: socket.socket, number: int) -> None:
    # A process that was killed meanwhile reads no answer.
    with suppress(BrokenPipeError):
        link.send(str(number).encode())


class _Forking:
    """The part of the module `subprocess` by which a command starts a service in the background."""

    DEVNULL = subprocess.DEVNULL

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery

    def Popen(
        self,
        command: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: IO[bytes],
        start_new_session: bool,
        env: Mapping[str, str],
    ) -> Child:
        assert [*command[:3]] == [sys.executable, "-m", "claudemesh"]
        with open(os.devnull, "r+b") as nothing:
            streams = [
                nothing.fileno() if stream == self.DEVNULL else stream
                for stream in (stdin, stdout, stderr.fileno())
            ]
            return self._nursery.spawn("cli", command[3:], env, streams, in_session=start_new_session)


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
    from claudemesh.cli import background
    from tests.support import armed

    _import_everything()
    # Ctrl-C is for the children: this process ends with the one that asks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    request = _Server(socket.socket(fileno=int(sys.argv[1]))).run()
    if request is None:
        return 0
    if request["in_session"]:
        os.setsid()
    vars(background)["subprocess"] = _Forking(Nursery(link=request["link"]))
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
