"""A stand-in for the messaging socket of Claude Code, which takes lines and never answers.

As the real one it drops a text that repeats the one before, and those beyond thirty that its bucket holds.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_BUCKET = 30


class ClaudeSocket:
    """It never answers. The lines stay here until the test takes them, as those of a client that is busy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        # Those that the model never gets, without a word to the writer.
        self.dropped: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(32)
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the client gives its children."""
        return {"CLAUDE_CODE_MESSAGING_SOCKET": str(self.path), "CLAUDE_CODE_MESSAGING_TOKEN": "t-1"}

    @property
    def inbox_of_qwen(self) -> dict[str, str]:
        """The variables of Qwen Code for a socket of the same kind."""
        return {"QWEN_CODE_MESSAGING_SOCKET": str(self.path), "QWEN_CODE_MESSAGING_TOKEN": "t-2"}

    @property
    def texts(self) -> list[str]:
        """The texts for the model."""
        return [line["message"]["content"] for line in self.lines if line["type"] == "user"]

    def close(self) -> None:
        """The client is gone; its socket's file stays, as after a kill."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            with suppress(OSError), link, link.makefile("rb") as file:
                for line in file:
                    # A writer that is killed leaves a part of a line.
                    if line.endswith(b"\n"):
                        self._take(json.loads(line))

    def _take(self, line: dict[str, Any]) -> None:
        is_repeated = line["type"] == "user" and self.texts[-1:] == [line["message"]["content"]]
        (self.dropped if is_repeated or len(self.texts) >= _BUCKET else self.lines).append(line)


@contextmanager
def claude_socket(folder: Path) -> Generator[ClaudeSocket]:
    """A socket in a folder with a short path."""
    made = ClaudeSocket(folder / "s")
    try:
        yield made
    finally:
        made.close()
