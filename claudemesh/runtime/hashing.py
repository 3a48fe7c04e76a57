"""SHA-256 on a thread of its own, so that a transfer encrypts, reads and writes meanwhile.

Both hashing and encryption give the interpreter back while they compute, so they use two cores.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class HashThread:
    """The thread of some hashes. It starts with the first bytes, and ends with the `with` block."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "hash")

    def sha256(self) -> ThreadedHash:
        """Return a new hash that is computed on this thread."""
        return ThreadedHash(self._executor)

    def __enter__(self) -> HashThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()


class ThreadedHash:
    """A SHA-256. At most two updates are under way, so a slow hash slows its caller down."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self._hash = hashlib.sha256()
        self._last: Future[None] | None = None

    def update(self, data: bytes) -> None:
        """Add bytes, in the order of the calls."""
        before, self._last = self._last, self._executor.submit(self._hash.update, data)
        if before is not None:
            before.result()

    def hexdigest(self) -> str:
        """Return the hash of the bytes so far."""
        if self._last is not None:
            self._last.result()
        return self._hash.hexdigest()
