"""Fast path of `claudemesh send TO TEXT`: the standard library alone, for scripts that send in a loop.

The zipapp runs this file before it unpacks itself. A command that it does not handle is left to the full
command line: `run` returns None, either before anything was sent or with the id of the send among the
arguments, so that no message is sent twice. A test compares the output of both.
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
    """Handle a plain send and return its exit code; None when the full command line must handle it.

    `distrust` is the rule of `runtime/trust.py` for the folder of the socket.
    """
    if sys.stdout is None or sys.stderr is None:
        # Closed: the full command line opens /dev/null in their place.
        return None
    given = _parse(argv)
    if given is None:
        return None
    path = _socket_path(given.get("mesh") or os.environ.get("CLAUDEMESH_MESH"))
    if path is None or not _is_safe(path, distrust):
        return None
    client_message_id = given.get("id") or _ulid()
    try:
        request = _request(given, client_message_id)
    except UnicodeEncodeError:
        return None
    answer = _exchange(path, request)
    if answer is None:
        return None
    if answer == b"":
        sys.stderr.write(
            "claudemesh: error: The daemon closed the connection before it answered. "
            f"Send again with --id {client_message_id}: the message arrives once.\n"
        )
        return _TEMPORARY
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202")):
        # The full command line sends again with the same id, and reports the error.
        if "id" not in given:
            argv += ["--id", client_message_id]
        return None
    _show(body.decode(), client_message_id, given)
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
    if len(words) != 2 or not all(words) or _may_name_a_file(words[1]):
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


def _may_name_a_file(text: str) -> bool:
    """Whether the full command line may have a note about the text: `@notes.txt` is no name of a file."""
    return text.startswith("@") and " " not in text


def _socket_path(mesh: str | None) -> str | None:
    if "CLAUDEMESH_DAEMON_SOCK" in os.environ:
        # A hook also sends its capability token.
        return None
    home = os.environ.get("CLAUDEMESH_HOME") or os.path.join(os.path.expanduser("~"), ".claudemesh")  # noqa: PTH111, PTH118
    daemons = os.path.join(os.path.expanduser(home), "daemon")  # noqa: PTH111, PTH118
    try:
        joined = [
            name
            for name in ([mesh] if mesh else os.listdir(daemons))  # noqa: PTH208
            if os.path.exists(f"{daemons}/{name}/membership.json")  # noqa: PTH110
        ]
        if len(joined) > 1:
            # The choice of `claudemesh mesh use`.
            with open(os.path.join(os.path.expanduser(home), "current_mesh")) as file:  # noqa: PTH111, PTH118, PTH123
                joined = [name for name in joined if name == file.read(64).strip()]
    except (OSError, ValueError):
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
    """Whether the process behind the socket is this user's. True where the kernel cannot tell."""
    import _socket

    if not hasattr(_socket, "SO_PEERCRED"):
        return True
    # struct ucred: pid, uid, gid.
    credentials = link.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder) == os.geteuid()


def _request(given: dict[str, str], client_message_id: str) -> bytes:
    fields = {"to": given["to"], "message": given["text"], "client_message_id": client_message_id}
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


def _word(text: str) -> str:
    """Return a text as one word of a shell, as `shlex.quote`, which takes longer to import."""
    if all(c.isascii() and (c.isalnum() or c in "@%+=:,./-_") for c in text):
        return text
    return "'" + text.replace("'", "'\"'\"'") + "'"


def _exchange(path: str, request: bytes) -> bytes | None:
    """Return the whole answer; None when nothing was sent, b"" when the outcome is unknown."""
    # `socket` takes five milliseconds longer to import than `_socket`.
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


def _show(body: str, client_message_id: str, given: dict[str, str]) -> None:
    """Print the answer. The message is accepted, so a stdout that cannot be written changes nothing."""
    status = body.partition('"status":"')[2].partition('"')[0]
    shown = f"{status} {client_message_id}\n"
    if "json" in given:
        wait = f"claudemesh wait --for {_word(f'message={client_message_id}')}"
        if "mesh" in given:
            wait += f" --mesh {_word(given['mesh'])}"
        following = "" if status == "done" else _quote(wait)
        shown = f'{{"schema":1,{body[1:-1]},"next":[{following}]}}\n'
    try:
        sys.stdout.write(shown)
        sys.stdout.flush()
    except OSError:
        # Python flushes once more while it shuts down, and would complain.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


def _ulid() -> str:
    value = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
