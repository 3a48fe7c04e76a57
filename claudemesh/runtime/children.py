"""Child processes, and the reaping of orphans by a process that is process 1 of its PID namespace.

The kernel makes process 1 the parent of every orphan of the namespace: in a container these are the processes
that `docker exec` left. A dead orphan stays a zombie until process 1 waits for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any
from weakref import WeakValueDictionary

# The children of this process that are its own. It is a table of the process, as the kernel's is.
_own: WeakValueDictionary[int, subprocess.Popen[bytes]] = WeakValueDictionary()


def spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a child, as `subprocess.Popen` does. Its exit code is kept for it, also in process 1."""
    process = subprocess.Popen(command, **options)  # noqa: S603 - the callers pass commands of the project
    _own[process.pid] = process
    return process


@contextmanager
def reaping_if_first() -> Generator[None]:
    """Reap orphans inside the block when this process is process 1; in any other process do nothing.

    It needs a running event loop. uvloop keeps SIGCHLD for itself, so the handler is that of `signal`. It
    only schedules the reaping: a child that is being started is in the table of `spawn` by then.
    """
    if os.getpid() != 1:
        yield
        return
    loop = asyncio.get_running_loop()

    def on_dead_child(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(reap_orphans)

    signal.signal(signal.SIGCHLD, on_dead_child)
    try:
        reap_orphans()
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def reap_orphans() -> int:
    """Wait for every dead child, and return the number of orphans among them.

    A child of `spawn` is polled: its exit code stays in its `Popen`. The state of a child is looked at first
    (WNOWAIT), so that only the child that was looked at is waited for.
    """
    orphans = 0
    while True:
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return orphans
        if dead is None:
            return orphans
        own = _own.get(dead.si_pid)
        if own is not None and own.returncode is None:
            if own.poll() is None:
                # Another thread waits for it.
                return orphans
            continue
        with suppress(ChildProcessError):
            os.waitpid(dead.si_pid, 0)
            orphans += 1
