"""A command that runs in the foreground, with the signals of this process passed on to it.

The command stays in this process's group, so the terminal is its terminal: job control and Ctrl-C work as
without this process. A signal from the terminal has reached the command already and is not passed on again.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

FORWARDED = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
)
NOT_FOUND, NOT_EXECUTABLE = 127, 126
_BY_SIGNAL = 128
# The code of a signal that the kernel itself sends, such as the terminal's SIGINT (SI_KERNEL).
_FROM_KERNEL = 0x80
# Ignored by Python, which a command does not expect.
_RESTORED = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
_POLL_S = 0.02


@contextmanager
def held_signals() -> Generator[set[signal.Signals]]:
    """Hold back the forwarded signals until they are waited for. Yields the mask from before."""
    # A handler, since a signal that is ignored by default would not become pending.
    before = signal.signal(signal.SIGCHLD, lambda number, frame: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED | {signal.SIGCHLD})
    try:
        yield mask  # type: ignore[misc]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGCHLD, before)


def run_command(command: Sequence[str], environment: Mapping[str, str], mask: set[signal.Signals]) -> int:
    """Run a command to its end, and return its exit code: 128+n after signal n, 127 when it is not found.

    Signals are held (`held_signals`); the command gets `mask`. `OSError` when it cannot be started.
    """
    pid = os.posix_spawnp(command[0], list(command), environment, setsigmask=mask, setsigdef=_RESTORED)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else _BY_SIGNAL - code
        number, is_from_terminal = _next_signal()
        if number in FORWARDED and not is_from_terminal:
            # The process is not reaped yet, so the number is its own.
            os.kill(pid, number)


def exit_code_of(error: OSError) -> int:
    """Return the exit code for a command that cannot be started, as shells have it."""
    return NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE


def find_command(program: str) -> None:
    """Raise the `OSError` of a start when the program is not found, or cannot be executed."""
    if shutil.which(program) is None:
        is_there = Path(program).exists() if os.sep in program else shutil.which(program, os.F_OK)
        code = errno.EACCES if is_there else errno.ENOENT
        raise OSError(code, os.strerror(code))


def wait_for(condition: Callable[[], bool], seconds: float) -> int | None:
    """Wait until a condition holds, for some seconds at most. Returns 0 when it holds, None at the end of the
    time, and 128+n when signal n of the held ones arrives."""
    deadline = time.monotonic() + seconds
    while not condition():
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        number = _signal_within(min(left, _POLL_S))
        if number in FORWARDED:
            return _BY_SIGNAL + number
    return 0


def _next_signal() -> tuple[int, bool]:
    """Wait for a held signal. Returns it, and whether the terminal sent it to the command too."""
    held = FORWARDED | {signal.SIGCHLD}
    if hasattr(signal, "sigwaitinfo"):
        found = signal.sigwaitinfo(held)
        return found.si_signo, found.si_code == _FROM_KERNEL
    number = signal.sigwait(held)
    return number, number in (signal.SIGINT, signal.SIGQUIT) and os.isatty(0)


def _signal_within(seconds: float) -> int:
    """Return a held signal that arrives within some seconds; 0 when none does."""
    if hasattr(signal, "sigtimedwait"):
        found = signal.sigtimedwait(FORWARDED, seconds)
        return 0 if found is None else found.si_signo
    pending = signal.sigpending() & FORWARDED
    if pending:
        return signal.sigwait(pending)
    time.sleep(seconds)
    return 0
