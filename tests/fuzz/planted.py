"""Targets that break their promises, so that a test can see that the fuzzer notices."""

from __future__ import annotations


def deep(data: bytes) -> None:
    """Fail behind several checks, where chance alone does not come."""
    if data[:1] == b"{" and data[-1:] == b"}" and b'"to"' in data and b'"low"' in data:
        raise ValueError("found")


def slow(data: bytes) -> None:
    """Take long for an input that nothing else tells from the others."""
    if data.count(b"[") > 2:
        sum(number for number in range(40_000_000))
