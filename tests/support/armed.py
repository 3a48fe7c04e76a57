"""Run claudemesh with armed failpoints: `python -m tests.support.armed ARGUMENTS…`.

CLAUDEMESH_FAILPOINTS is a comma-separated list of `name=action@hit`: at the hit-th passing of the
named point, `kill` ends this process by SIGKILL, `raise` raises `OSError`, `hang` stops this thread
for ever. Nothing of this is part of the product: the product only has the names.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter

from claudemesh.cli.main import main
from claudemesh.runtime.failpoints import install


def parse(text: str) -> dict[str, tuple[str, int]]:
    """Return name -> (action, hit)."""
    points = {}
    for entry in filter(None, text.split(",")):
        name, _, rest = entry.partition("=")
        action, _, hit = rest.partition("@")
        points[name] = (action, int(hit or 1))
    return points


class Armed:
    """Counts passings and strikes at the chosen one."""

    def __init__(self, points: dict[str, tuple[str, int]]) -> None:
        self._points = points
        self._passed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, name: str) -> None:
        if name not in self._points:
            return
        action, hit = self._points[name]
        with self._lock:
            self._passed[name] += 1
            if self._passed[name] != hit:
                return
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "raise":
            raise OSError(f"failpoint {name}")
        elif action == "hang":
            threading.Event().wait()
        else:
            sys.exit(f"unknown failpoint action {action!r}")


def run() -> int:
    """Arm the points that the environment names, and run the command of `sys.argv`."""
    install(Armed(parse(os.environ.get("CLAUDEMESH_FAILPOINTS", ""))))
    return main()


if __name__ == "__main__":
    sys.exit(run())
