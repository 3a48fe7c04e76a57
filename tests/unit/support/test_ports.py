"""Ports of tests: those of one worker are never chosen by another, and none twice."""

from __future__ import annotations

from tests.support.ports import candidates, free_port


def test_workers_share_no_port() -> None:
    """Below the range of the kernel, or above it when that is larger."""
    for kernel in ((32_768, 60_999), (1_024, 60_999)):
        found = [set(candidates(kernel, f"gw{number}", "3")) for number in range(3)]
        assert set.union(*found) == set(candidates(kernel, "", ""))
        assert sum(map(len, found)) == len(set.union(*found))
        assert not any(kernel[0] <= port <= kernel[1] for port in set.union(*found))


def test_a_kernel_that_gives_every_port_leaves_none() -> None:
    assert len(candidates((1_024, 65_535), "gw0", "2")) == 0


def test_a_port_is_given_once() -> None:
    """Nothing may listen on it yet when the next one is asked for."""
    given = [free_port() for _ in range(300)]
    assert len(set(given)) == 300
