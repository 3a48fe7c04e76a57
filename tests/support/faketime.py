"""Wall clocks of whole processes, set by hand with libfaketime; monotonic clocks go on as they are.

A clock is a file, which processes started with its variables read at each call: it can be set while they run.

    clock = FakeClock(folder / "clock")
    process.environment |= clock.variables
    clock.shift(days=365)
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

_PLACES = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/local/lib/faketime", "/usr/lib64/faketime")
_LIBRARY = "libfaketimeMT.so.1"


def library() -> Path:
    """The library to preload, for programs with threads."""
    for place in _PLACES:
        for found in Path("/").glob(f"{place.removeprefix('/')}/{_LIBRARY}"):
            return found
    raise AssertionError(f"{_LIBRARY} is not installed: install the package faketime")


# Read by the library when a process starts; it reads the name of the clock's file at each call.
SETTINGS = {
    # The clock is read at each call, not every ten seconds.
    "FAKETIME_NO_CACHE": "1",
    # By its name in newer and in older versions. CLOCK_BOOTTIME is left alone with it.
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    "DONT_FAKE_MONOTONIC": "1",
    # A correction for old C libraries. With others, a thread that waits for another one would spin.
    "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    # Times of files are the kernel's.
    "NO_FAKE_STAT": "1",
}


def is_fake(preloaded: str) -> bool:
    """Whether this library gives a process a fake clock."""
    return Path(preloaded).name == _LIBRARY


class FakeClock:
    """The time of day of some processes, as an offset to the real one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._library = library()
        self.reset()

    @property
    def variables(self) -> dict[str, str]:
        """Return the variables that give a process and its children this clock."""
        return {"LD_PRELOAD": str(self._library), "FAKETIME_TIMESTAMP_FILE": str(self._path), **SETTINGS}

    def shift(self, *, days: float) -> None:
        """Set it so many days off the real time."""
        self._write(round(days * 86_400))

    def set(self, moment: datetime) -> None:
        """Set it to a moment, from which it goes on."""
        self._write(round(moment.astimezone(UTC).timestamp() - time.time()))

    def reset(self) -> None:
        """Set it right."""
        self._write(0)

    def _write(self, seconds: int) -> None:
        # Put in place whole: a process may read at any moment.
        fresh = self._path.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self._path)
