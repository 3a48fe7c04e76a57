"""The shims: libraries that are loaded into a process and switched from outside, through files.

`fault.c` makes writes and fsyncs of chosen files fail; libfaketime moves the wall clock and leaves the
monotonic one alone.
"""

from __future__ import annotations

import errno
import mmap
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_name("fault.c")
_FAKETIME: Final = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
)
# The layout of the control page: errno (0: off), then a count of the calls that failed, then the match.
_ERRNO: Final = struct.Struct("<q")
_PAGE: Final = 4096
_MATCH_AT: Final = 16
CODES: Final = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC}


def build_fault_shim(folder: Path) -> Path | None:
    """Compile the shim; None when this machine has no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "fault.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(library), str(_SOURCE)]
    subprocess.run([*command, "-ldl"], check=True, capture_output=True)
    return library


def find_faketime() -> Path | None:
    """Return the library, None when it is not installed (Debian: apt-get install faketime)."""
    for pattern in _FAKETIME:
        if found := sorted(Path("/").glob(pattern.removeprefix("/"))):
            return found[0]
    return None


class FaultSwitch:
    """The control page of one process's shim."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_PAGE))
        self.path = path
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), _PAGE)

    def on(self, code: str, match: str) -> None:
        """Fail every write and fsync of files whose path contains `match`."""
        text = match.encode() + b"\0"
        self._page[_MATCH_AT : _MATCH_AT + len(text)] = text
        self._page[0 : _ERRNO.size] = _ERRNO.pack(CODES[code])

    def off(self) -> None:
        """Let everything pass again."""
        self._page[0 : _ERRNO.size] = _ERRNO.pack(0)

    @property
    def struck(self) -> int:
        """Return the number of calls that have failed since the start."""
        return int(_ERRNO.unpack_from(self._page, _ERRNO.size)[0])

    def close(self) -> None:
        """Unmap the page."""
        self._page.close()


class ClockSwitch:
    """The file that libfaketime reads the offset of one process's wall clock from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set(0)

    def set(self, offset_s: int) -> None:
        """Move the wall clock to the real one plus an offset; it holds within a second."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(f"{offset_s:+d}")
        fresh.rename(self.path)


def environment(
    fault: Path | None, switch: FaultSwitch | None, faketime: Path | None, clock: ClockSwitch | None
) -> dict[str, str]:
    """Return the variables that load the shims into a process."""
    made: dict[str, str] = {}
    libraries = []
    if fault is not None and switch is not None:
        libraries.append(str(fault))
        made["TORTURE_FAULT_PAGE"] = str(switch.path)
    if faketime is not None and clock is not None:
        libraries.append(str(faketime))
        made |= {
            "FAKETIME_TIMESTAMP_FILE": str(clock.path),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",
            "NO_FAKE_STAT": "1",
        }
    if libraries:
        made["LD_PRELOAD"] = ":".join(libraries)
    return made
