"""A wait of a test for something that comes has the limit of `tests/support/waiting.py`.

A shorter one fails on a machine that gives the processes no time for some seconds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.parsed import nodes
from tests.support.waiting import WAIT_S

TESTS = Path(__file__).parents[1]
# Calls with the limit as their last positional argument, and how many of those they have then.
POSITIONAL = {"timeout": 1, "settimeout": 1, "wait": 1, "result": 1, "join": 1, "wait_for": 2}
# Shorter ones are pauses.
PAUSE_S = 1.0
# Files with short limits that are meant to pass.
MEANT = {
    "unit/protocol/test_outcomes.py": "results of sends, which are no waits",
}


def _name(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def limits(source: str) -> Iterator[tuple[int, float]]:
    """The line and the seconds of each limit that is written as a number."""
    for node in nodes(source):
        if not isinstance(node, ast.Call):
            continue
        name = _name(node.func)
        found = [word.value for word in node.keywords if word.arg == "timeout"]
        if POSITIONAL.get(name) == len(node.args):
            found.append(node.args[-1])
        for value in found:
            if isinstance(value, ast.Constant) and isinstance(value.value, int | float):
                yield node.lineno, value.value


def test_a_wait_for_something_that_comes_has_the_common_limit() -> None:
    """Numbers below a second are pauses between two looks."""
    short = [
        (name, line, seconds)
        for path in sorted(TESTS.rglob("*.py"))
        for line, seconds in limits(path.read_text())
        if PAUSE_S <= seconds < WAIT_S and (name := path.relative_to(TESTS).as_posix()) not in MEANT
    ]
    assert short == []


def test_the_rule_finds_each_form_of_a_limit() -> None:
    """Otherwise it would hold nothing."""
    source = (
        "async def f():\n async with asyncio.timeout(5): pass\n await asyncio.wait_for(x, 10)\n"
        " subprocess.run(x, timeout=30)\n process.wait(3)\n thread.join(2)\n socket.settimeout(1)\n"
    )
    assert sorted(seconds for _, seconds in limits(source)) == [1, 2, 3, 5, 10, 30]
