"""Run claudemesh and note what holds its event loop: `python -m tests.support.watched ARGUMENTS…`.

Each callback of the loop is measured in processor time of the loop's thread, so that neither a busy machine
nor the work of other threads counts. A callback that took longer than `NOTED_MS` is a line of JSON in the
file that CLAUDEMESH_TEST_HELD names, with where it was seen. The loop is asyncio's own, because uvloop's
callbacks cannot be measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from asyncio import events
from pathlib import Path
from types import FrameType
from typing import Any

import uvloop

from claudemesh.cli.main import main

HELD_FILE = "CLAUDEMESH_TEST_HELD"
NOTED_MS = 1.0
_SAMPLE_S = 0.003


class Watch:
    """Measures the callbacks of the main thread's loop, and looks where the long ones are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun = time.monotonic()
        self._thread = threading.get_ident()
        self._running = 0
        self._where = ""
        self._run = events.Handle._run  # type: ignore[attr-defined]

    def install(self) -> None:
        """Measure from now on."""
        watch = self
        events.Handle._run = lambda handle: watch(handle)  # type: ignore[attr-defined]
        threading.Thread(target=self._sample, daemon=True).start()

    def __call__(self, handle: Any) -> None:
        if threading.get_ident() != self._thread:
            self._run(handle)
            return
        self._running += 1
        started = time.thread_time()
        self._run(handle)
        held_ms = (time.thread_time() - started) * 1000
        if held_ms >= NOTED_MS:
            at_s = round(time.monotonic() - self._begun, 2)
            note = {"ms": round(held_ms, 1), "at_s": at_s, "where": self._where}
            with self._path.open("a") as file:
                file.write(json.dumps(note) + "\n")
        self._running += 1
        self._where = ""

    def _sample(self) -> None:
        before = 0
        while True:
            time.sleep(_SAMPLE_S)
            now = self._running
            if now == before and now % 2:
                self._where = _place(sys._current_frames()[self._thread])
            before = now


def _place(frame: FrameType | None) -> str:
    """Return the innermost lines of the product, the innermost first."""
    places: list[str] = []
    while frame is not None and len(places) < 4:
        name = frame.f_code.co_filename
        if "claudemesh" in name:
            places.append(f"{Path(name).name}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(places)


def held(path: Path) -> list[dict[str, Any]]:
    """Return what was noted, the longest first."""
    lines = path.read_text().splitlines() if path.exists() else []
    return sorted(map(json.loads, lines), key=lambda note: -note["ms"])


if __name__ == "__main__":
    Watch(Path(os.environ[HELD_FILE])).install()
    uvloop.run = asyncio.run
    sys.exit(main())
