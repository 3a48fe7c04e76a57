"""Ways into the client of a session: each gives it a text that wakes it while it is idle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol, TypeAlias

from claudemesh.cli.mcp.jsonlines import line_of

Outcome: TypeAlias = Literal["written", "failed", "gone"]
MOST_BYTES: Final = 4096
_SECONDS: Final = 5.0


class Door(Protocol):
    """A way into a client."""

    @property
    def proves_texts(self) -> bool:
        """Whether a hook of the client proves that a text reached the model. Others are given notices."""
        ...

    def is_open(self) -> bool:
        """Whether the client can take a text now."""
        ...

    def write(self, text: str) -> Outcome:
        """Give a text to the client. `gone`: no client will take one any more."""
        ...


def write_lines(path: str, lines: Sequence[object]) -> Outcome:
    """Write lines of JSON to a socket of this user."""
    # Imported here: the first answer of the server needs no socket.
    import socket
    from pathlib import Path

    from claudemesh.runtime.peer import connect, distrust_peer

    try:
        with connect(Path(path)) as link:
            link.settimeout(_SECONDS)
            if distrust_peer(link, Path(path)) is not None:
                return "gone"
            link.sendall(b"".join(map(line_of, lines)))
            link.shutdown(socket.SHUT_WR)
    except (FileNotFoundError, ConnectionRefusedError):
        return "gone"
    except OSError:
        return "failed"
    return "written"
