"""The process of a running daemon, known by its socket and held by a descriptor, not by its number."""

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
class DaemonProcess:
    """A process that listens on a daemon's socket, by a descriptor of the process itself.

    A signal reaches this process or none, whatever its number stands for by then.
    """

    pid: int
    descriptor: int

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)

    def ended_within(self, seconds: float) -> bool:
        """Wait for the end of the process, for so long at most; tell whether it has ended."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)


def find_process(path: Path) -> DaemonProcess | None:
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
            return DaemonProcess(peer.pid, descriptor)
    return _opened(path, peer.pid)


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


def _opened(path: Path, pid: int) -> DaemonProcess | None:
    """Open a process by its number, and make sure that the number was still its own then."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
    found = DaemonProcess(pid, descriptor)
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
