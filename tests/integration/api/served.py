"""A real daemon's API on a real socket, in the test's own loop; its broker is away."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from claudemesh.daemon.api import ApiRoutes, build_api
from claudemesh.daemon.api.access import AccessRules
from claudemesh.daemon.api.app import OPTIONS
from claudemesh.daemon.api.status import DaemonHealth
from claudemesh.daemon.app import Daemon
from claudemesh.daemon.bus import Bus, BusEvent
from claudemesh.daemon.identity.profile import ProfileUpdates
from claudemesh.daemon.inbox.store import InboxRow, InboxStore, item
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.home.paths import DaemonPaths
from claudemesh.protocol.ids import UlidFactory
from claudemesh.protocol.replies import Read
from claudemesh.runtime.clock import SystemClock
from claudemesh.runtime.files import make_private_dir, write_atomic
from claudemesh.runtime.services import TaskOwner
from claudemesh.runtime.web.asgi import App
from claudemesh.runtime.web.heads import DEADLINES, Deadlines
from claudemesh.runtime.web.server import HttpServer
from claudemesh.runtime.web.sockets import bind_tcp, bind_unix
from tests.support.daemon import MESH_ID, directory_of, person
from tests.support.inbox import inbox_row
from tests.support.values import replace
from tests.support.waiting import WAIT_S

T = TypeVar("T")


_clock = SystemClock()
new_id = UlidFactory(_clock.wall_ms, os.urandom).new


@dataclass(frozen=True, slots=True)
class Response:
    """One answer as it came over the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The code; fails when the answer has not the one shape of errors."""
        value = self.json
        assert self.headers["content-type"] == "application/json"
        assert value["message"][-1] in ".?", value
        assert "Traceback" not in value["message"]
        return str(value["error"])


class BrokerAnswers:
    """Stands where the link does, for what the API asks of the broker: fixed answers, calls noted."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = answers
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self.connected = True
        self.lag_ms = 1
        self.broker_version = "9.9.9"
        self.last_error = None

    async def call(self, method: str, params: Mapping[str, Any], read: Read[T]) -> T:
        self.calls.append((method, params))
        answer = self._answers[method]
        if isinstance(answer, Exception):
            raise answer
        return read(answer)


@dataclass(frozen=True, slots=True)
class Served:
    """A daemon's API that answers; `routes` are the groups behind it, with the daemon's own parts."""

    routes: ApiRoutes
    sock: Path
    app: App
    port: int = 0
    lived: Any = None

    @property
    def outbox(self) -> OutboxStore:
        return self.routes.outbox.store

    @property
    def inbox(self) -> InboxStore:
        return self.routes.inbox.store

    @property
    def bus(self) -> Bus:
        return self.routes.events.bus

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.sock), limit=1 << 24)

    async def raw(self, data: bytes) -> bytes:
        """Send bytes as they are; return what comes back until the server closes or falls silent."""
        reader, writer = await self.connect()
        received = b""
        try:
            writer.write(data)
            while chunk := await asyncio.wait_for(reader.read(1 << 16), WAIT_S):
                received += chunk
                if _is_whole(received):
                    break
        except (ConnectionError, BrokenPipeError):
            pass
        finally:
            writer.close()
        return received

    async def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """One request; a body that is no bytes is sent as JSON."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = {"Host": "localhost", **({"Content-Type": "application/json"} if raw else {})}
        given |= {"Content-Length": str(len(raw))} if raw or method == "POST" else {}
        given |= headers or {}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        return parse(await self.raw(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + raw))

    async def send(self, body: Any, headers: Mapping[str, str] | None = None) -> Response:
        return await self.ask("POST", "/v1/send", body, headers)

    async def rows(self) -> list[dict[str, Any]]:
        """Every row of the outbox."""
        rows, _ = await self.outbox.page(None, 500, None)
        return rows

    async def receive(self, *bodies: str, **changes: Any) -> list[InboxRow]:
        """Store messages as received, and publish them, as the receiver does."""
        rows = [msgspec.structs.replace(row_of(body), **changes) for body in bodies]
        seqs = await self.inbox.insert(rows)
        self.bus.publish(
            BusEvent("message", item(row, seq), str(seq))
            for row, seq in zip(rows, seqs, strict=True)
            if seq is not None
        )
        return rows


def _is_whole(received: bytes) -> bool:
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return False


def parse(raw: bytes) -> Response:
    """Read one answer with a Content-Length."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Response(int(first.split()[1]), headers, body)


def row_of(body: str) -> InboxRow:
    """Return the row of a message of another member."""
    return inbox_row(sender_name="bob", body=body, received_at=_clock.wall_ms())


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop go on until something is so; it is not for ever that a test waits."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what is watched has no event of its own
            await asyncio.sleep(0.001)


def join(paths: DaemonPaths) -> None:
    """Make the files of alice, who knows bob and whose broker is never there."""
    make_private_dir(paths.home)
    make_private_dir(paths.root)
    alice, bob = person("alice"), person("bob")
    membership = {
        "mesh_id": MESH_ID,
        "slug": paths.slug,
        "broker_url": "ws://127.0.0.1:1",
        "member_id": alice.member_id,
        "name": alice.name,
        "role": "owner",
        "inviter_pubkey": None,
    }
    write_atomic(paths.membership, json.dumps(membership).encode())
    write_atomic(paths.keypair, json.dumps(alice.identity.to_json()).encode())
    directory_of(paths.root, alice, bob).save()


@asynccontextmanager
async def served(
    folder: Path,
    *,
    link: Any = None,
    settings: DaemonSettings | None = None,
    token: bytes | None = None,
    tcp: bool = False,
    wrap: Callable[[ApiRoutes], App] | None = None,
    deadlines: Deadlines = DEADLINES,
    **limits: float,
) -> AsyncGenerator[Served]:
    """A daemon with its broker away, and its API once more: on `api`, or on TCP, or as `wrap` makes it.

    `link` takes the place of the real one as far as the API asks the broker something. `limits` change the
    options that the API is served with, `deadlines` those of the server below it.
    """
    paths = DaemonPaths(folder / "h", "demo")
    join(paths)
    daemon = Daemon(paths, settings or DaemonSettings())
    await daemon.start()
    # As if the broker had been there once: an unknown name is not waited for.
    daemon.parts.broker.sync._synced.set()
    routes = daemon.routes if link is None else _asking(link, daemon.routes)
    origins = frozenset(origin.encode() for origin in routes.status.health.config.settings.allowed_origins)
    rules = AccessRules(origins, () if token is None else (token,))
    options: Any = replace(OPTIONS, **limits)  # type: ignore[arg-type]
    app = wrap(routes) if wrap is not None else build_api(routes, rules, options=options)
    listener = bind_tcp("127.0.0.1", 0) if tcp else bind_unix(folder / "api")
    server = HttpServer(app, listener, deadlines=deadlines)
    await server.start()
    try:
        yield Served(
            routes, folder / "api", app, listener.getsockname()[1] if tcp else 0, daemon.parts.stores.lived
        )
    finally:
        routes.events.bus.close()
        await server.stop()
        await daemon.stop()


class _Health:
    """The daemon's health, as if it had reached a broker of this version."""

    def __init__(self, health: DaemonHealth, broker_version: str) -> None:
        self.membership, self.clock, self.config = health.membership, health.clock, health.config
        self.keyring, self.connected, self.address = health.keyring, True, health.address
        self.make = health.make
        self.broker_version = broker_version
        self.schema_version, self.broker_features = health.schema_version, health.broker_features


def _asking(link: Any, routes: ApiRoutes) -> ApiRoutes:
    """The routes with another broker behind them."""
    return replace(
        routes,
        topics=replace(routes.topics, call=link.call),
        peers=replace(routes.peers, profile=ProfileUpdates(link.call, TaskOwner())),
        invites=replace(routes.invites, call=link.call),
        status=replace(routes.status, health=_Health(routes.status.health, link.broker_version)),
    )


class EventReader:
    """A client of GET /v1/events."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.head = b""
        self._blocks: list[str] = []

    @classmethod
    async def open(cls, daemon: Served, query: str = "", last_event_id: str | None = None) -> EventReader:
        """Ask for the stream; return when it is live."""
        stream = await cls.ask(daemon, query, last_event_id)
        stream.head = await asyncio.wait_for(stream._reader.readuntil(b"\r\n\r\n"), WAIT_S)
        return stream

    @classmethod
    async def ask(cls, daemon: Served, query: str = "", last_event_id: str | None = None) -> EventReader:
        """Ask for the stream, and read nothing yet."""
        reader, writer = await daemon.connect()
        extra = "" if last_event_id is None else f"Last-Event-ID: {last_event_id}\r\n"
        writer.write(f"GET /v1/events{query} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode())
        return cls(reader, writer)

    async def next(self) -> tuple[str | None, str, Any]:
        """The next event (id, name, data), or comment (None, "", text). Ends with `EOFError`."""
        fields: dict[str, str] = {}
        for line in (await self.block()).splitlines():
            name, _, value = line.partition(": ")
            fields[name or ""] = value
        if "event" not in fields:
            return None, "", fields.get("", "")
        return fields.get("id"), fields["event"], json.loads(fields["data"])

    async def until_live(self) -> list[str]:
        """Read up to the word that the stream is live; returns the bodies that were replayed."""
        bodies = []
        while True:
            _, name, data = await self.next()
            if (name, data) == ("", "live"):
                return bodies
            if name:
                bodies.append(data["body"])

    async def bodies(self, count: int) -> list[str]:
        """Read that many messages."""
        bodies = []
        while len(bodies) < count:
            _, name, data = await self.next()
            if name == "message":
                bodies.append(data["body"])
        return bodies

    async def ended(self) -> bool:
        """Read on until the server ends it; comments and events are passed over."""
        try:
            while True:
                await self.next()
        except (EOFError, ConnectionError):
            return True
        finally:
            self.close()

    def close(self) -> None:
        self.writer.close()

    async def block(self) -> str:
        """The next block of lines."""
        # A chunk of HTTP holds whole events and comments, one or more.
        if self._blocks:
            return self._blocks.pop(0)
        size = await asyncio.wait_for(self._reader.readline(), WAIT_S)
        if size.strip() in (b"", b"0"):
            raise EOFError
        chunk = await asyncio.wait_for(self._reader.readexactly(int(size, 16) + 2), WAIT_S)
        self._blocks = chunk.decode().strip().split("\n\n")
        return self._blocks.pop(0)
