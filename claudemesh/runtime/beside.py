"""A thread beside another one, which hashes and writes while that one encrypts and reads.

Hashing, encryption and writing give the interpreter back, so the two threads use two cores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from claudemesh.runtime.yielding import give_way

# Work that is not done yet, after which the caller waits.
_AHEAD = 2


class Beside:
    """A thread that does work in the order of the calls, until the end of the `with` block.

    A failure is raised by a later call, and all work behind it is left out.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "beside", give_way)
        self._open: deque[Future[None]] = deque()
        self._has_failed = False

    def do(self, work: Callable[[], object]) -> None:
        """Let the thread do work. Wait first while it is behind."""
        while len(self._open) >= _AHEAD:
            self._open.popleft().result()
        self._open.append(self._executor.submit(self._done, work))

    def wait(self) -> None:
        """Return when all work is done."""
        while self._open:
            self._open.popleft().result()

    def _done(self, work: Callable[[], object]) -> None:
        if self._has_failed:
            return
        try:
            work()
        except BaseException:
            self._has_failed = True
            raise

    def __enter__(self) -> Beside:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()
