"""The process of a running daemon or broker, held by a descriptor and not by its number.

A daemon's process is known by its socket, a broker's by the lock file that it holds open.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from claudemesh.runtime.peer import connect, listener_on, peer_of

# SO_PEERPIDFD of Linux 6.5 in the generic numbering; other kernels refuse it or do not have it.
_SO_PEERPIDFD = 77
_FD_BYTES = 4


@dataclass(frozen=True, slots=True)
class LocalProcess:
    """A process of this host, by a descriptor of the process itself.

    A signal reaches this process or none, also when its number belongs to another process by then.
    """

    pid: int
    descriptor: int

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)

    def ended_within(self, seconds: float) -> bool:
        """Wait up to this many seconds for the end of the process; return whether it has ended."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)


def find_process(path: Path) -> LocalProcess | None:
    """Return the process that listens on a socket; None when it cannot be held here.

    That is so where the kernel has no descriptors of processes, and for a process in a PID namespace that
    this process does not see into. `OSError` when no process listens.
    """
    with closing(connect(path)) as link:
        peer = peer_of(link)
        if peer is None or peer.pid == 0:
            return None
        descriptor = _peer_descriptor(link)
        if descriptor is not None:
            return LocalProcess(peer.pid, descriptor)
    return _opened(path, peer.pid)


def find_user(path: Path, pid: int) -> LocalProcess | None:
    """Return the process of this id if it holds a file open; None when it does not, or cannot be held here.

    The id may come from a file: a process that has taken the number over has not opened this file.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
    if _has_open(pid, path):
        return LocalProcess(pid, descriptor)
    os.close(descriptor)
    return None


def _has_open(pid: int, path: Path) -> bool:
    with suppress(OSError):
        wanted = path.stat()
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found = entry.stat()
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return True
    return False


def is_elsewhere(path: Path) -> bool:
    """Tell whether the process that listens on a socket is in another PID namespace than this one."""
    peer = listener_on(path)
    if peer is None:
        return False
    if peer.pid == 0:
        return True
    try:
        status = Path(f"/proc/{peer.pid}/status").read_text()
    except OSError:
        return False
    # The process's number in each namespace, from the reader's down to its own.
    numbers = [line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")]
    return any(len(found) > 1 for found in numbers)


def _peer_descriptor(link: socket.socket) -> int | None:
    try:
        raw = link.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, _FD_BYTES)
    except OSError:
        return None
    descriptor = int.from_bytes(raw, sys.byteorder)
    os.set_inheritable(descriptor, False)
    return descriptor


def _opened(path: Path, pid: int) -> LocalProcess | None:
    """Open a process by its number, and make sure that the number was still its own then."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
    found = LocalProcess(pid, descriptor)
    try:
        # The process listens still: it has not ended, so the number was never free.
        with closing(connect(path)) as link:
            peer = peer_of(link)
        if peer is not None and peer.pid == pid and not found.ended_within(0):
            return found
    except BaseException:
        found.close()
        raise
    found.close()
    return None
