"""Python programs and their daemon: `from claudemesh import Daemon`, or this one file copied out.

    daemon = Daemon()
    daemon.send("alice", "the build is green")
    for message in daemon.messages():
        daemon.send(message.sender_name, "seen", reply_to_id=message.broker_message_id)

`AsyncDaemon` has the same methods to be awaited. Only the standard library is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypedDict, TypeVar, Unpack
from urllib.parse import urlencode

P = ParamSpec("P")
T = TypeVar("T")

_TIMEOUT_S = 60.0
_ATTEMPTS = 6
_CAPABILITY = os.environ.get("CLAUDEMESH_CAPABILITY_TOKEN")
_HEADERS = {"Authorization": f"Bearer {_CAPABILITY}"} if _CAPABILITY else {}
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class DaemonError(Exception):
    """What went wrong between this program and its daemon; `code` is stable, the message is one sentence."""

    def __init__(
        self, code: str, message: str, status: int = 0, body: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.body = code, message, status, dict(body or {})


class DaemonNotRunning(DaemonError):
    """Nobody answers on the socket: `claudemesh daemon up -d` starts the daemon."""


class InvalidRequest(DaemonError):
    """The daemon does not take this request; `body["field"]` names the field, if it is one."""


class DestinationNotFound(DaemonError):
    """There is no such member, topic or row; `body["near"]` lists members of a similar name."""


class Conflict(DaemonError):
    """The client_message_id belongs to another send, or to one that was given up. Nothing was written."""


class DaemonBusy(DaemonError):
    """Too much at once, after several attempts."""


class BrokerUnavailable(DaemonError):
    """This needs the broker, which cannot be reached now. Sends do not: they wait in the outbox."""


class InsufficientStorage(DaemonError):
    """The disk or the queue is full. Nothing of this send was kept."""


_ERRORS: dict[int, type[DaemonError]] = {
    404: DestinationNotFound,
    409: Conflict,
    429: DaemonBusy,
    503: BrokerUnavailable,
    507: InsufficientStorage,
}


class SendFields(TypedDict, total=False):
    """What a send may say besides text and destination."""

    client_message_id: str
    priority: Literal["now", "next", "low"]
    meta: dict[str, Any]
    reply_to_id: str
    mentions: list[str]


@dataclass(frozen=True)
class Sent:
    """A send that is on this host's disk; `broker_message_id` once the broker has accepted it."""

    status: str
    client_message_id: str
    duplicate: bool = False
    broker_message_id: str | None = None
    history_id: int | None = None


@dataclass(frozen=True)
class Message:
    """A received message. `body` is None while the key that opens it has not arrived."""

    seq: int
    id: str
    client_message_id: str
    broker_message_id: str
    sender_name: str
    sender_pubkey: str
    sender_member_id: str
    kind: str
    body: str | None
    received_at: str
    priority: str = "next"
    topic: str | None = None
    meta: dict[str, Any] | None = None
    reply_to_id: str | None = None
    shown_at: str | None = None
    acked_at: str | None = None


@dataclass(frozen=True)
class Peer:
    """A member of the mesh."""

    name: str
    pubkey: str
    member_id: str
    role: str
    online: bool
    status: str | None = None
    summary: str | None = None
    last_seen_at: str | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened; a `message` event's data is the message, and `seq` its place."""

    event: str
    data: dict[str, Any]
    seq: int | None = None


def find_socket(mesh: str | None = None) -> Path:
    """Return where the daemon answers: CLAUDEMESH_DAEMON_SOCK, or the mesh's folder under CLAUDEMESH_HOME."""
    given = os.environ.get("CLAUDEMESH_DAEMON_SOCK")
    if given and mesh is None:
        return Path(given)
    folder = Path(os.environ.get("CLAUDEMESH_HOME") or "~/.claudemesh").expanduser() / "daemon"
    mesh = mesh or os.environ.get("CLAUDEMESH_MESH")
    if mesh is None:
        known = sorted(path.parent.name for path in folder.glob("*/membership.json"))
        if len(known) != 1:
            which = f"it is in {', '.join(known)}: name one" if known else "join one first"
            raise DaemonError("which_mesh", f"This host is not in exactly one mesh; {which}.")
        mesh = known[0]
    return folder / mesh / "sock"


def new_id() -> str:
    """Return a ULID: an id that sorts by its time of making."""
    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(secrets.token_bytes(10), "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def _made(kind: type[T], item: Mapping[str, Any]) -> T:
    """Make a value of what the daemon says; what this version does not know is left out."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in item.items() if name in known})


def _read_answer(status: int, raw: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(raw)
    except ValueError:
        answer = {}
    if status < 400:
        return dict(answer)
    kind = _ERRORS.get(status, InvalidRequest if status < 500 else DaemonError)
    code, message = str(answer.get("error", "error")), str(answer.get("message", f"HTTP {status}"))
    raise kind(code, message, status, answer)


def _wait_s(attempt: int) -> float:
    return min(5.0, 0.1 * 2.0**attempt)


def _not_running(path: Path, error: BaseException) -> DaemonNotRunning:
    text = f"No daemon answers on {path} ({error}): start it with `claudemesh daemon up -d`."
    return DaemonNotRunning("daemon_not_running", text)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(os.fspath(self._path))
        except OSError as error:
            raise _not_running(self._path, error) from error


def _follow(connection: _UnixConnection, since: int | None) -> Generator[tuple[int | None, Event | None]]:
    """Read one stream: each event with its seq, and a seq alone where the stream says that it begins."""
    path = "/v1/events" if since is None else f"/v1/events?since={since}"
    connection.request("GET", path, headers={"Accept": "text/event-stream"})
    response = connection.getresponse()
    if response.status != 200:
        _read_answer(response.status, response.read())
    found: dict[str, str] = {}
    for raw in response:
        line = raw.decode().rstrip("\r\n")
        if line:
            name, _, value = line.partition(": ")
            found[name] = value
            continue
        seq = int(found["id"]) if "id" in found else None
        if "data" in found:
            yield seq, Event(found.get("event", "message"), json.loads(found["data"]), seq)
        elif seq is not None:
            yield seq, None
        found = {}


class Daemon:
    """This host's daemon for one mesh; `mesh` is needed only where this host is in several.

    Every method raises a `DaemonError`. A request that the daemon was too busy for, or whose answer was
    lost, is made again: ids make that free.
    """

    def __init__(
        self, mesh: str | None = None, *, timeout_s: float = _TIMEOUT_S, socket_path: Path | None = None
    ) -> None:
        self._path = socket_path or find_socket(mesh)
        self._timeout_s = timeout_s
        self._streams: set[_UnixConnection] = set()
        self._closed = False

    def send(self, to: str, message: str, *, wait_ms: int = 0, **given: Unpack[SendFields]) -> Sent:
        """Send to a member, a key, `#topic` or `queue:name`; on return it is on the disk."""
        # An id of our own makes every retry of ours free.
        body = {"to": to, "message": message, "client_message_id": new_id(), **given}
        return _made(Sent, self._ask("POST", f"/v1/send?wait_ms={wait_ms}" if wait_ms else "/v1/send", body))

    def inbox(
        self,
        *,
        after: int | None = None,
        since: str | None = None,
        topic: str | None = None,
        sender: str | None = None,
        unread: bool = False,
    ) -> Iterator[Message]:
        """Go through messages, oldest first, not consuming any; `after` is a seq, `since` in ISO 8601."""
        given = {"after": after, "since": since, "topic": topic, "from": sender, "unread": int(unread)}
        return (_made(Message, item) for item in self._pages("/v1/inbox", given))

    def _pages(self, path: str, given: dict[str, Any]) -> Iterator[dict[str, Any]]:
        following = True
        while following:
            query = {"limit": 500} | {name: value for name, value in given.items() if value is not None}
            page = self._ask("GET", f"{path}?{urlencode(query)}")
            yield from page["items"]
            following = given["after"] = page["next"]

    def ack(self, *messages: Message, as_: Literal["shown", "acked"] = "acked") -> None:
        """Note that messages were shown, or are done with."""
        self._ask("POST", "/v1/inbox/ack", {"ids": [message.id for message in messages], "as": as_})

    def peers(self) -> list[Peer]:
        """Return the members of the mesh."""
        return [_made(Peer, item) for item in self._pages("/v1/peers", {})]

    def subscribe(self, topic: str) -> None:
        """Receive what is posted to a topic from now on; it is made if there is none."""
        self._ask("POST", "/v1/topic/create", {"topic": topic})
        self._ask("POST", "/v1/topic/subscribe", {"topic": topic})

    def health(self) -> dict[str, Any]:
        """Return how the daemon is."""
        return self._ask("GET", "/v1/health")

    def messages(self, since: int | None = None) -> Generator[Message]:
        """Wait for messages, each once, over restarts of the daemon too; `since` a seq replays first."""
        for event in self.events(since):
            if event.event == "message":
                yield _made(Message, event.data)

    def events(self, since: int | None = None) -> Generator[Event]:
        """Wait for events. Messages are complete over a lost connection; what else happened then is not."""
        failures = 0
        while not self._closed:
            connection = _UnixConnection(self._path, self._timeout_s)
            self._streams.add(connection)
            try:
                for seq, event in _follow(connection, since):
                    failures, since = 0, since if seq is None else seq
                    if event is not None:
                        yield event
            except DaemonNotRunning:
                # Before the first word it is an error, after it the daemon is restarting.
                if since is None:
                    raise
            except (OSError, http.client.HTTPException):
                pass
            finally:
                self._streams.discard(connection)
                connection.close()
            time.sleep(_wait_s(failures))
            failures += 1

    def close(self) -> None:
        """End every iterator over events, whatever thread it is in."""
        self._closed = True
        for connection in tuple(self._streams):
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            try:
                return self._ask_once(method, path, body)
            except DaemonBusy:
                if last:
                    raise
            except DaemonNotRunning:
                # A daemon that was there a moment ago is restarting.
                if last or not attempt:
                    raise
            except (OSError, http.client.HTTPException) as error:
                if last:
                    raise _not_running(self._path, error) from error
            time.sleep(_wait_s(attempt))
        raise AssertionError

    def _ask_once(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        connection = _UnixConnection(self._path, self._timeout_s)
        with contextlib.closing(connection):
            raw = None if body is None else json.dumps(body).encode()
            connection.request(method, path, raw, {**_HEADERS, "Content-Type": "application/json"})
            response = connection.getresponse()
            return _read_answer(response.status, response.read())


def _call(
    method: Callable[Concatenate[Daemon, P], T],
) -> Callable[Concatenate[AsyncDaemon, P], Coroutine[Any, Any, T]]:
    async def run(self: AsyncDaemon, /, *given: P.args, **named: P.kwargs) -> T:
        return await asyncio.to_thread(method, self._daemon, *given, **named)

    run.__doc__ = method.__doc__
    return run


def _each(
    method: Callable[Concatenate[Daemon, P], Iterator[T]],
) -> Callable[Concatenate[AsyncDaemon, P], AsyncGenerator[T]]:
    async def run(self: AsyncDaemon, /, *given: P.args, **named: P.kwargs) -> AsyncGenerator[T]:
        # A client of its own for the same socket: leaving the loop ends this iterator alone.
        daemon = Daemon(timeout_s=self._daemon._timeout_s, socket_path=self._daemon._path)
        items = method(daemon, *given, **named)
        try:
            while (item := await asyncio.to_thread(next, items, None)) is not None:
                yield item
        finally:
            daemon.close()

    run.__doc__ = method.__doc__
    return run


class AsyncDaemon:
    """The same daemon for asyncio: each call runs in a thread, and the event loop goes on meanwhile."""

    def __init__(self, mesh: str | None = None, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._daemon = Daemon(mesh, timeout_s=timeout_s)

    send = _call(Daemon.send)
    ack = _call(Daemon.ack)
    peers = _call(Daemon.peers)
    subscribe = _call(Daemon.subscribe)
    health = _call(Daemon.health)
    inbox = _each(Daemon.inbox)
    messages = _each(Daemon.messages)
    events = _each(Daemon.events)
