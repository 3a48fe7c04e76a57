"""Fork server for hooks: forks workers, which run one hook at a time and end the processes that it leaves.

It imports no other module: the daemon starts it as a script in a separate interpreter, so that running a
hook never forks the daemon. Where the kernel allows, each worker is the first process of a PID namespace
and ends all processes that a hook left there. Elsewhere it adopts orphans and ends those that it can see.

    daemon ── control socket (stdin) ──> fork server ── fork ──> worker ── spawn ──> hook
       └───────────── one socket per worker ───────────────────────┘

A message is four bytes of length and JSON, followed by the bytes that the JSON counts.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

_NEWNS, _NEWUSER, _NEWPID, _NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_CAPBSET_DROP = 1, 36, 24
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x4000, 1 << 18
# Capabilities by which root could leave a network namespace: NET_ADMIN, SYS_MODULE, SYS_RAWIO, SYS_PTRACE,
# SYS_ADMIN, MKNOD, PERFMON, BPF, CHECKPOINT_RESTORE.
_ESCAPES = (12, 16, 17, 19, 21, 27, 38, 39, 40)
_LENGTH = struct.Struct("!I")
_PIECE = 1 << 16
_DEFAULT_SIGNALS = [
    number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)
]


def main(network: str, isolation: str) -> None:
    """Serve until the daemon closes the control socket."""
    control = socket.socket(fileno=os.dup(0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    flags = _enter(network == "deny", isolation)
    home = os.open("/proc/self/ns/pid", os.O_RDONLY) if flags & _NEWPID else -1
    has_proc = home >= 0 and _tried(lambda: _unshare(_NEWPID), _mount_proc)
    confine = Confinement(mount_proc=has_proc, drop_escapes=flags & (_NEWNET | _NEWUSER) == _NEWNET)
    found = {"pid_namespace": bool(flags & _NEWPID), "network_namespace": bool(flags & _NEWNET)}
    _send(control, found)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    while True:
        word, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not word:
            return
        # Received descriptors are inheritable by default. A hook must not hold its worker's socket.
        os.set_inheritable(descriptors[0], False)
        _fork_worker(descriptors[0], control, home, confine)
        os.close(descriptors[0])


# Namespaces.


class Confinement(NamedTuple):
    """Confinement of a worker before it runs hooks."""

    # Whether to mount a /proc of the PID namespace. With the host's, a hook sees every process under other
    # ids.
    mount_proc: bool
    # Whether to drop the capabilities by which a hook that runs as root could enter the host's network
    # again.
    drop_escapes: bool

    def apply(self) -> None:
        """Confine this process and everything that it starts."""
        if self.mount_proc:
            _mount_proc()
        if self.drop_escapes:
            for capability in _ESCAPES:
                # The kernel does not know the capability, so there is nothing to drop.
                with contextlib.suppress(OSError):
                    _libc("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)


def _enter(without_network: bool, isolation: str) -> int:
    """Leave the host's namespaces as far as the kernel allows; return the flags of those that were left.

    Only children are in a new PID namespace, so this process waits for its child and never returns.
    """
    for flags in _wishes(without_network, isolation):
        if _tried(lambda flags=flags: _unshare(flags)):  # type: ignore[misc]
            _unshare(flags)
            if flags & _NEWPID:
                _stay_as_guard()
            return flags
    return 0


def _wishes(without_network: bool, isolation: str) -> list[int]:
    if isolation == "none" or not sys.platform.startswith("linux"):
        return []
    network = _NEWNET if without_network else 0
    wishes = [_NEWPID | network, _NEWUSER | _NEWPID | network, _NEWPID, _NEWUSER | _NEWPID]
    return list(dict.fromkeys([*wishes, network, _NEWUSER | network] if network else wishes))


def _tried(entering: Callable[[], None], inside: Callable[[], None] = lambda: None) -> bool:
    """Try a step in a child process, and a second one in a child of that, because a step cannot be undone."""
    pid = os.fork()
    if pid == 0:
        try:
            entering()
            inner = os.fork()
            if inner == 0:
                inside()
                os._exit(0)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) and 1)
        except BaseException:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _unshare(flags: int) -> None:
    user, group = os.geteuid(), os.getegid()
    _libc("unshare", flags)
    if flags & _NEWUSER:
        # The hook keeps the id of its user, and sees no other id.
        maps = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}
        for name, text in maps.items():
            Path(f"/proc/self/{name}").write_text(text)


def _stay_as_guard() -> None:
    pid = os.fork()
    if pid == 0:
        _libc("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    os.close(0)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)


def _mount_proc() -> None:
    """Mount a /proc of this process's PID namespace, seen by this process and its children alone."""
    _libc("unshare", _NEWNS)
    _libc("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    _libc("mount", b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None)


def _libc(name: str, *arguments: int | bytes | None) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


# Workers.


def _fork_worker(descriptor: int, control: socket.socket, home: int, confine: Confinement) -> None:
    pid = -1
    # When no process can be forked, the daemon finds this socket closed. Running hooks continue.
    with contextlib.suppress(OSError):
        if home >= 0:
            _libc("unshare", _NEWPID)
        pid = os.fork()
    if pid:
        if home >= 0:
            _libc("setns", home, _NEWPID)
        return
    try:
        control.close()
        os.close(0)
        os.open(os.devnull, os.O_RDONLY)
        os.setsid()
        confine.apply()
        Worker(socket.socket(fileno=descriptor)).serve()
    finally:
        os._exit(0)


class Worker:
    """Runs one hook after another for the daemon; the hook and its children end with the daemon."""

    def __init__(self, daemon: socket.socket) -> None:
        self._daemon = daemon
        self._is_init = os.getpid() == 1
        self._wake, wake_end = os.pipe()
        for end in (self._wake, wake_end):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        if not self._is_init and sys.platform.startswith("linux"):
            with contextlib.suppress(OSError):
                _libc("prctl", _PR_SET_CHILD_SUBREAPER, 1)

    def serve(self) -> None:
        """Answer requests until the daemon closes the socket."""
        while (head := _read(self._daemon, _LENGTH.size)) is not None:
            header = _read(self._daemon, _LENGTH.unpack(head)[0])
            if header is None:
                return
            request = json.loads(header)
            payload = _read(self._daemon, request["stdin"])
            if payload is None:
                return
            found, stdout, stderr = self._run(request, payload)
            _send(self._daemon, {**found, "stdout": len(stdout), "stderr": len(stderr)}, stdout + stderr)

    def _run(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes, bytes]:
        started = time.monotonic()
        try:
            run = _Run(request, payload)
        except OSError as error:
            return {"error": error.strerror or str(error)}, b"", b""
        watched = [self._daemon.fileno(), self._wake]
        ended = None
        while ended is None:
            ready = run.wait(watched)
            if self._daemon.fileno() in ready:
                self._give_up(run)
            if self._wake in ready:
                os.read(self._wake, 4096)
            # Checked each time, because a wake-up may have come before the wait.
            ended = self._reap(run)
        survivors = self._sweep()
        run.finish()
        code = os.waitstatus_to_exitcode(ended)
        found = {
            "exit": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "timed_out": run.timed_out,
            "survivors": survivors,
            "duration_ms": round((time.monotonic() - started) * 1000, 3),
            "stdout_bytes": run.stdout.total,
            "stderr_bytes": run.stderr.total,
        }
        return found, bytes(run.stdout.kept), bytes(run.stderr.kept)

    def _give_up(self, run: _Run) -> NoReturn:
        run.signal(signal.SIGKILL)
        self._sweep()
        os._exit(0)

    def _reap(self, run: _Run) -> int | None:
        """Reap exited children; return the wait status of the hook itself when it is among them."""
        while True:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return None
            if dead is None:
                return None
            if dead.si_pid == run.pid:
                # Before it is reaped, because until then no other process can have the number of its group.
                run.signal(signal.SIGKILL, group=True)
                return os.waitpid(run.pid, 0)[1]
            os.waitpid(dead.si_pid, 0)

    def _sweep(self) -> int:
        """End the processes that the hook left behind; return their number."""
        count = 0
        while True:
            try:
                # Most hooks leave no process, so no search is needed.
                count += os.waitpid(-1, os.WNOHANG)[0] > 0
                self._kill_the_rest()
                count += os.waitpid(-1, 0)[0] > 0
            except ChildProcessError:
                return count

    def _kill_the_rest(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._is_init:
                os.kill(-1, signal.SIGKILL)
                return
            for pid in _children_of(os.getpid()):
                os.kill(pid, signal.SIGKILL)


def _children_of(parent: int) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != b"Z":
            found.append(int(process.name))
    return found


class _Run:
    """One run of a hook: its pipes, its deadline and its output."""

    def __init__(self, request: dict[str, Any], payload: bytes) -> None:
        self._group = request["killpg"]
        self._grace_s = request["grace_ms"] / 1000
        self._input = memoryview(payload)
        (stdin, self._stdin), (out, stdout), (err, stderr) = os.pipe(), os.pipe(), os.pipe()
        self.stdout = _Kept(out, request["stdout_limit"])
        self.stderr = _Kept(err, request["stderr_limit"])
        try:
            os.chdir(request["cwd"])
            self.pid = os.posix_spawn(
                request["argv"][0],
                request["argv"],
                request["env"],
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, end, to) for to, end in enumerate((stdin, stdout, stderr))
                ],
                setpgroup=0,
                setsigmask=(),
                setsigdef=_DEFAULT_SIGNALS,
            )
        except BaseException:
            self.finish()
            raise
        finally:
            for end in (stdin, stdout, stderr):
                os.close(end)
        for end in (self._stdin, out, err):
            os.set_blocking(end, False)
        self.timed_out = False
        self._killed = False
        self._deadline = time.monotonic() + request["timeout_ms"] / 1000

    def wait(self, watched: list[int]) -> set[int]:
        """Read and write the pipes until an event or a deadline; return the ready descriptors of
        `watched`."""
        poll = select.poll()
        for end in (*watched, *(kept.end for kept in (self.stdout, self.stderr) if kept.end >= 0)):
            poll.register(end, select.POLLIN)
        if self._stdin >= 0:
            poll.register(self._stdin, select.POLLOUT)
        left_s = self._deadline - time.monotonic()
        ready = {end for end, _ in poll.poll(max(0, left_s) * 1000 if not self._killed else 1000)}
        for kept in (self.stdout, self.stderr):
            if kept.end in ready:
                kept.read()
        if self._stdin in ready:
            self._write()
        if time.monotonic() >= self._deadline and not self._killed:
            self._press()
        return ready

    def signal(self, number: int, *, group: bool | None = None) -> None:
        """Send a signal to the hook, or to its whole group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            (os.killpg if (self._group if group is None else group) else os.kill)(self.pid, number)

    def finish(self) -> None:
        """Read the rest of the pipes, and close them."""
        if self._stdin >= 0:
            os.close(self._stdin)
        for kept in (self.stdout, self.stderr):
            kept.close()

    def _press(self) -> None:
        """SIGTERM at the deadline, SIGKILL after the grace period."""
        self._killed = self.timed_out
        self.signal(signal.SIGKILL if self.timed_out else signal.SIGTERM)
        self.timed_out = True
        self._deadline = time.monotonic() + self._grace_s

    def _write(self) -> None:
        try:
            self._input = self._input[os.write(self._stdin, self._input[:_PIECE]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._input = self._input[:0]
        if not self._input:
            os.close(self._stdin)
            self._stdin = -1


class _Kept:
    """The first bytes of a pipe, up to a limit; the rest is read and dropped."""

    def __init__(self, end: int, limit: int) -> None:
        self.end = end
        self.kept = bytearray()
        self.total = 0
        self._limit = limit

    def read(self) -> None:
        """Read a piece; close the pipe at its end."""
        if not self._take():
            self.close()

    def close(self) -> None:
        """Read what is left and close the pipe. No process may write to it any more."""
        if self.end >= 0:
            os.set_blocking(self.end, False)
            while self._take():
                pass
            os.close(self.end)
            self.end = -1

    def _take(self) -> bool:
        try:
            piece = os.read(self.end, _PIECE)
        except BlockingIOError:
            return False
        self.total += len(piece)
        self.kept += piece[: max(0, self._limit - len(self.kept))]
        return bool(piece)


# Messages.


def _read(connection: socket.socket, count: int) -> bytes | None:
    """Read `count` bytes; return None when the other side has closed the socket."""
    parts = bytearray()
    while len(parts) < count:
        try:
            part = connection.recv(min(count - len(parts), 1 << 20))
        except ConnectionError:
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)


def _send(connection: socket.socket, header: dict[str, Any], rest: bytes = b"") -> None:
    raw = json.dumps(header).encode()
    with contextlib.suppress(BrokenPipeError, ConnectionError):
        connection.sendall(_LENGTH.pack(len(raw)) + raw + rest)


if __name__ == "__main__":
    main(*sys.argv[1:3])
