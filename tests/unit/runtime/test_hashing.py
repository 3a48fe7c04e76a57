"""Hashes on a thread."""

from __future__ import annotations

import hashlib
import os

from claudemesh.runtime.hashing import HashThread


def test_a_hash_on_a_thread_is_that_of_all_bytes_in_order() -> None:
    """Two hashes share a thread, and each sees its own bytes."""
    first, second = hashlib.sha256(), hashlib.sha256()
    with HashThread() as thread:
        aside, beside = thread.sha256(), thread.sha256()
        for number in range(50):
            data, other = os.urandom(1 + 4096 * number), os.urandom(100)
            for known, threaded, part in ((first, aside, data), (second, beside, other)):
                known.update(part)
                threaded.update(part)
        assert aside.hexdigest() == first.hexdigest()
    assert beside.hexdigest() == second.hexdigest()


def test_a_hash_of_nothing_starts_no_thread() -> None:
    """An empty one has a value."""
    with HashThread() as thread:
        assert thread.sha256().hexdigest() == hashlib.sha256().hexdigest()
