"""One request by HTTP on a connection to the daemon, and its answer.

`http.client` imports TLS and the parsers of mail: 6 MB, and a third of the start of a command. The daemon is
trusted, and gives each answer that is read here a length.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from socket import socket

_PIECE: Final = 64 << 10
_LONGEST_HEAD: Final = 64 << 10
_END: Final = b"\r\n\r\n"
# A status without a body.
_NO_CONTENT: Final = 204


class BadAnswer(OSError):
    """The connection ended within the answer, or the answer is not HTTP."""


def exchange(
    link: socket, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
) -> tuple[int, bytes]:
    """Return the status and the body of the answer. Raise `OSError` without a whole one."""
    with suppress(BrokenPipeError, ConnectionResetError):
        # A daemon that refuses a long request answers before it has read the whole, and closes.
        link.sendall(_request(method, target, body, headers))
    received = bytearray()
    while (end := received.find(_END)) < 0:
        if len(received) > _LONGEST_HEAD or not _receive(link, received):
            raise BadAnswer("the answer has no head")
    status, length = _read_head(bytes(received[:end]))
    del received[: end + len(_END)]
    while length is None or len(received) < length:
        if not _receive(link, received):
            if length is None:
                break
            raise BadAnswer("the connection ended within the answer")
    return status, bytes(received[:length])


def _request(method: str, target: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {_escaped(target)} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None or method == "POST":
        lines.append(f"Content-Length: {len(body or b'')}")
    return "\r\n".join(lines).encode() + _END + (body or b"")


def _escaped(target: str) -> str:
    """Return a path whose spaces, control characters and characters beyond ASCII are escaped: none of them
    ends the line of the request."""
    if target.isascii() and target.isprintable() and " " not in target:
        return target
    raw = target.encode(errors="surrogateescape")
    return "".join(chr(one) if 0x21 <= one <= 0x7E else f"%{one:02X}" for one in raw)


def _receive(link: socket, received: bytearray) -> bool:
    piece = link.recv(_PIECE)
    received += piece
    return bool(piece)


def _read_head(head: bytes) -> tuple[int, int | None]:
    """Return the status, and the length of the body: None when it ends with the connection."""
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
    try:
        status = int(first.split(" ", 2)[1])
        length = int(fields["content-length"]) if "content-length" in fields else None
    except (IndexError, ValueError):
        raise BadAnswer("the answer is not HTTP") from None
    if "transfer-encoding" in fields or not first.startswith("HTTP/1."):
        raise BadAnswer("the answer has no length")
    return status, 0 if status == _NO_CONTENT else length
