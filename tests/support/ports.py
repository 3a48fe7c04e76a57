"""Ports for the servers of tests.

A server of a test is stopped and started on one port, so the port must stay free while no process listens on
it: the kernel must not give it to a connection, and no other test may choose it.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_FIRST = 10_000
_LAST = 65_535
_FEWEST = 1_000
_WORKER = "PYTEST_XDIST_WORKER"
_chance = random.SystemRandom()
_given: set[int] = set()


def free_port() -> int:
    """Return a loopback port without a listener, which this process has not given before."""
    worker, workers = (os.environ.get(name, "") for name in (_WORKER, f"{_WORKER}_COUNT"))
    ports = candidates(_given_by_the_kernel(), worker, workers)
    while True:
        wanted = _chance.choice(ports) if ports else 0
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", wanted))
            port: int = probe.getsockname()[1]
            if port not in _given or len(_given) > len(ports) // 2 > 0:
                _given.add(port)
                return port


def candidates(kernel: tuple[int, int], worker: str, workers: str) -> Sequence[int]:
    """Return the ports to choose from; of several workers of a run, each has its own.

    They lie below or above the range of the kernel. None are left when that range is everything.
    """
    below, above = range(_FIRST, kernel[0]), range(kernel[1] + 1, _LAST + 1)
    ports = max(below, above, key=len)
    if len(ports) < _FEWEST:
        return ()
    number = worker.removeprefix("gw")
    if not number.isdigit() or not workers.isdigit():
        return ports
    return ports[int(number) % int(workers) :: int(workers)]


def _given_by_the_kernel() -> tuple[int, int]:
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except (OSError, ValueError):
        return 0, _LAST
    return first, last
