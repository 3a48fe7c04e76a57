"""A program on a pseudo-terminal, as a person uses it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import termios
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_ROWS, _COLUMNS = 50, 160
_SHOWN: Final = 6000
_KEY_S: Final = 0.5
_MOST_KEYS: Final = 60
_CONTROL: Final = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-9;?<>=]*[a-zA-Z]|\x1b[()][A-Z0-9]|\x1b[=>78]"
)


class Terminal:
    """The program, and all that it has drawn."""

    def __init__(self, pid: int, link: int) -> None:
        self.pid = pid
        self._link = link
        self._drawn = bytearray()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def text(self) -> str:
        """The characters that were drawn, without their places."""
        return _CONTROL.sub("", self._drawn.decode(errors="replace"))

    def press(self, keys: str) -> None:
        """Type keys."""
        os.write(self._link, keys.encode())

    def enter(self, text: str, is_taken: Callable[[], bool]) -> None:
        """Type a text and confirm it, until the program has taken it.

        A client may read the key that confirms together with the text, and take both for a paste.
        """
        self.press(text)
        for _ in range(_MOST_KEYS):
            threading.Event().wait(_KEY_S)
            self.press("\r")
            threading.Event().wait(_KEY_S)
            if is_taken():
                return
        raise AssertionError(f"the program does not take {text[:40]!r}")

    def _read(self) -> None:
        with suppress(OSError):
            while part := os.read(self._link, 65_536):
                self._drawn += part


@contextmanager
def terminal(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[Terminal]:
    """A program on a terminal of its own, killed at the end."""
    pid, link = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(command[0], list(command), dict(environment))  # noqa: S606
    fcntl.ioctl(link, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    drawn = Terminal(pid, link)
    try:
        yield drawn
    except AssertionError as error:
        error.add_note(f"the end of the screen: {drawn.text[-_SHOWN:]}")
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(link)
