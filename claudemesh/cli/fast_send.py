"""`claudemesh send TO TEXT` without the imports: what scripts call in a loop should cost them little.

Standard library and hand-made JSON only; the zipapp runs it ahead of its unpacking. Whatever it does
not handle, it leaves to the full command line by returning None, before anything has been sent or
with the id that was sent, so that nothing is ever sent twice. A test holds both to the same output.
"""

from __future__ import annotations

import os
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

_OPTIONS = {"--mesh": "mesh", "--id": "id", "--priority": "priority", "--wait": "wait"}
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CONNECT_S = 0.1
_ANSWER_S = 60.0
_TEMPORARY = 75


def run(argv: list[str], distrust: Callable[[str], str | None]) -> int | None:
    """Handle a plain send and return its exit code, or None when the full command line must.

    `distrust` is the rule of `runtime/trust.py` for the folder of the socket.
    """
    given = _parse(argv)
    if given is None:
        return None
    path = _socket_path(given.get("mesh"))
    if path is None or not _is_safe(path, distrust):
        return None
    message_id = given.get("id") or _ulid()
    try:
        request = _request(given, message_id)
    except UnicodeEncodeError:
        return None
    answer = _exchange(path, request)
    if answer is None:
        return None
    if answer == b"":
        sys.stderr.write(
            "claudemesh: error: The daemon went away before it answered: send again with "
            f"--id {message_id}, it arrives once.\n"
        )
        return _TEMPORARY
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202")):
        # The full command line asks again, under the same id, and words the error.
        if "id" not in given:
            argv += ["--id", message_id]
        return None
    _show(body.decode(), message_id, as_json="json" in given)
    return 0


def _parse(argv: list[str]) -> dict[str, str] | None:
    if len(argv) < 3 or argv[0] != "send":
        return None
    given: dict[str, str] = {}
    words: list[str] = []
    rest = iter(argv[1:])
    for word in rest:
        if word == "--json":
            given["json"] = word
        elif word in _OPTIONS:
            value = next(rest, "")
            if not value or value.startswith("-") or _OPTIONS[word] in given:
                return None
            given[_OPTIONS[word]] = value
        elif word.startswith("-") or len(words) == 2:
            return None
        else:
            words.append(word)
    if len(words) != 2 or not words[0]:
        return None
    wait = given.get("wait")
    if wait is not None and not (
        wait.isascii() and wait.isdigit() and len(wait) <= 5 and int(wait) <= 30_000
    ):
        return None
    if given.get("priority", "next") not in ("now", "next", "low"):
        return None
    given["to"], given["text"] = words
    return given


def _socket_path(mesh: str | None) -> str | None:
    if "CLAUDEMESH_DAEMON_SOCK" in os.environ:
        return None  # a hook: it bears a token besides
    home = os.environ.get("CLAUDEMESH_HOME") or os.path.join(os.path.expanduser("~"), ".claudemesh")  # noqa: PTH111, PTH118
    daemons = os.path.join(os.path.expanduser(home), "daemon")  # noqa: PTH111, PTH118
    try:
        joined = [
            name
            for name in ([mesh] if mesh else os.listdir(daemons))  # noqa: PTH208
            if os.path.exists(f"{daemons}/{name}/membership.json")  # noqa: PTH110
        ]
    except OSError:
        return None
    return f"{daemons}/{joined[0]}/sock" if len(joined) == 1 else None


def _is_safe(path: str, distrust: Callable[[str], str | None]) -> bool:
    try:
        found = os.lstat(path)
        return (
            stat.S_ISSOCK(found.st_mode)
            and found.st_uid == os.geteuid()
            and distrust(os.path.dirname(path)) is None  # noqa: PTH120
        )
    except OSError:
        return False


def _answers_as_this_user(link: socket) -> bool:
    """Whether the process behind the socket is this user's, where the kernel tells (`runtime/peer.py`)."""
    import _socket

    if not hasattr(_socket, "SO_PEERCRED"):
        return True
    # struct ucred: pid, uid, gid.
    credentials = link.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder) == os.geteuid()


def _request(given: dict[str, str], message_id: str) -> bytes:
    fields = {"to": given["to"], "message": given["text"], "client_message_id": message_id}
    if "priority" in given:
        fields["priority"] = given["priority"]
    body = ("{" + ",".join(f'"{name}":{_quote(value)}' for name, value in fields.items()) + "}").encode()
    query = f"?wait_ms={given['wait']}" if "wait" in given else ""
    head = (
        f"POST /v1/send{query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        escaped = "".join(c if c >= " " else f"\\u{ord(c):04x}" for c in escaped)
    return f'"{escaped}"'


def _exchange(path: str, request: bytes) -> bytes | None:
    """Return the whole answer; None when nothing was sent, b"" when the outcome is unknown."""
    # `socket` would cost five milliseconds more than what it is made of.
    import _socket

    link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        link.settimeout(_CONNECT_S)
        link.connect(path)
        is_own = _answers_as_this_user(link)
    except OSError:
        is_own = False
    if not is_own:
        link.close()
        return None
    try:
        link.settimeout(_ANSWER_S)
        link.sendall(request)
        parts = []
        while part := link.recv(65_536):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        link.close()


def _show(body: str, message_id: str, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(body + "\n")
        return
    status = body.partition('"status":"')[2].partition('"')[0]
    sys.stdout.write(f"{status} {message_id}\n")


def _ulid() -> str:
    value = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
