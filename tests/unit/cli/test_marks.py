"""Marks of messages on their way to the daemon: a hook waits for none of them, and none is lost."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, cast

import pytest

from claudemesh.cli.mcp.marks import Marks
from claudemesh.cli.mcp.session import McpSession
from claudemesh.client.errors import DaemonNotRunning
from tests.support.waiting import WAIT_S


class Slow:
    """A session whose daemon takes a mark when the test lets it."""

    name, id = "api", "s1"

    def __init__(self) -> None:
        self.asked, self.goes_on = threading.Event(), threading.Event()
        self.is_down = False
        self.taken: list[Any] = []

    def client(self) -> Slow:
        return self

    def post(self, path: str, body: Mapping[str, Any]) -> None:
        self.asked.set()
        assert self.goes_on.wait(WAIT_S)
        if self.is_down:
            raise DaemonNotRunning("demo")
        self.taken.append(body.get("through") or body["ids"])


def test_a_call_that_does_not_wait_leaves_its_mark_to_the_one_on_its_way() -> None:
    """The marks of a hundred thousand messages take seconds, and a hook holds up a turn."""
    daemon = Slow()
    marks = Marks(cast(McpSession, daemon))
    marks.owe((), "notified", 100_000)
    first = threading.Thread(target=marks.settle)
    first.start()
    assert daemon.asked.wait(WAIT_S)
    marks.owe(["m1"], "shown")
    assert not marks.settle(0.001)
    daemon.goes_on.set()
    first.join(WAIT_S)
    assert daemon.taken == [100_000, ["m1"]]
    assert marks.settle(0.001)


def test_a_mark_that_no_daemon_took_is_taken_by_the_next_one() -> None:
    """In the order of the calls, and once."""
    daemon = Slow()
    daemon.goes_on.set()
    daemon.is_down = True
    marks = Marks(cast(McpSession, daemon))
    for number in (1, 2):
        marks.owe([f"m{number}"], "shown")
        with pytest.raises(DaemonNotRunning):
            marks.settle()
    daemon.is_down = False
    assert marks.settle()
    assert daemon.taken == [["m1"], ["m2"]]
