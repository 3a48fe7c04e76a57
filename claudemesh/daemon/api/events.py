"""GET /v1/events: server-sent events, resumable by position (docs/spec/daemon.md, Events).

The position is the inbox's seq. A stream sends its position before anything else, so that a client that is
cut off before its first event resumes without a gap. It then replays stored messages behind the position,
subscribes to the bus, and replays once more up to the subscription. A message that both bring is recognized
by its seq.

A position greater than the newest seq comes from another inbox: this one was recreated or restored from a
backup. Such a stream begins with a `reset` event and the oldest message.
"""

from __future__ import annotations

import asyncio
from typing import Final

import orjson
from msgspec import Struct

from claudemesh.daemon.api.failures import reply_to
from claudemesh.daemon.bus import Bus, BusEvent, Stream
from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.jsontext import plain
from claudemesh.runtime.aside import Slices
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner
from claudemesh.runtime.web.asgi import App, Receive, Scope, Send, hang_up
from claudemesh.runtime.web.errors import HttpRefusal, method_not_allowed
from claudemesh.runtime.web.query import parse_query, sequence
from claudemesh.runtime.web.replies import (
    CLOSE,
    SECURITY_HEADERS,
    WRITE_DEADLINE_S,
    Reply,
    respond,
    send_within,
)
from claudemesh.runtime.web.routes import HeaderField, Route, ServeOptions
from claudemesh.runtime.web.unsized import begin_unsized, end_unsized

log = get_logger("api.events")

MAX_STREAMS: Final = 32
COMMENT_EVERY_S: Final = 15.0
_CHUNK = 64 << 10
_REPLAYED_AT_A_TIME: Final = 100
# Delay before a browser's EventSource reconnects.
_RETRY_MS: Final = 1000

_SINCE = sequence("since")
_LAST_EVENT_ID: Final = b"last-event-id"
_TOO_MANY = HttpRefusal(
    429, "too_many_streams", f"{MAX_STREAMS} event streams are open: close one, or share it.", headers=CLOSE
)
_TYPE: Final = b"text/event-stream"
_HEADERS = [(b"content-type", _TYPE), *SECURITY_HEADERS, *CLOSE]


class EventRoutes(Struct, frozen=True, kw_only=True):
    """Parts that the route of event streams uses."""

    inbox: InboxStore
    bus: Bus


class EventStreams:
    """ASGI app that serves up to 32 streams; one more is refused with 429.

    Backpressure: a client that does not accept an event within `write_deadline_s`, or lets more events wait
    than its queue on the bus holds, is disconnected. Other streams are not affected.
    """

    def __init__(
        self,
        sources: EventRoutes,
        *,
        comment_every_s: float = COMMENT_EVERY_S,
        write_deadline_s: float = WRITE_DEADLINE_S,
    ) -> None:
        self._sources = sources
        self._comment_every_s = comment_every_s
        self._write_deadline_s = write_deadline_s
        self._tasks = TaskOwner()
        self.open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client disconnects, falls behind, or the daemon stops."""
        try:
            asked = _asked(scope)
            if self.open >= MAX_STREAMS:
                raise _TOO_MANY
        except Exception as error:
            await respond(send, reply_to(error))
            return
        if scope["method"] == "HEAD":
            await respond(send, Reply(200, b"", CLOSE, content_type=_TYPE))
            return
        self.open += 1
        reader = _Reader(scope, send, self._write_deadline_s)
        watch = self._tasks.start(reader.watch(receive), "event_stream_watch")
        try:
            await self._stream(reader, asked)
        except StorageError as error:
            log.error("event_replay_failed", error=str(error))
            reader.hang_up()
            await asyncio.wait([watch], timeout=self._write_deadline_s)
        finally:
            self.open -= 1
            watch.cancel()

    async def _stream(self, reader: _Reader, asked: int | None) -> None:
        position = await self._sources.inbox.position()
        start = first_position(asked, position)
        await reader.begin()
        # A block without data is no event, but clients take its id.
        opening = b"retry: %d\nid: %d\n\n" % (_RETRY_MS, start)
        if asked is not None and asked > position:
            log.warning("event_position_past_end", asked=asked, position=position)
            opening += encode_event(_reset(asked, position))
        await reader.write(opening)
        start = await self._replay(reader, start)
        with self._sources.bus.subscribe() as stream:
            reader.follows(stream)
            last = await self._replay(reader, start)
            await reader.write(b"id: %d\n: live\n\n" % last)
            await self._go_live(reader, stream, last)
            if stream.lagged:
                log.info("event_stream_lagged")
                await reader.write(b": fell behind, resume with Last-Event-ID\n\n")
        await reader.end()

    async def _replay(self, reader: _Reader, since: int) -> int:
        """Send the stored messages after `since`; return the last seq sent."""
        slices = Slices()
        while not reader.gone:
            items = await self._sources.inbox.replay(since, _REPLAYED_AT_A_TIME)
            for item in items:
                await slices.rest()
                since = item["seq"]
                await reader.write(encode_event(BusEvent("message", item, str(since))))
            if len(items) < _REPLAYED_AT_A_TIME:
                break
        return since

    async def _go_live(self, reader: _Reader, stream: Stream, last: int) -> None:
        while True:
            try:
                async with asyncio.timeout(self._comment_every_s):
                    events = await stream.waiting()
            except TimeoutError:
                await reader.write(b": still here\n\n")
                continue
            except StopAsyncIteration:
                return
            chunk, slices = bytearray(), Slices()
            for event in events:
                await slices.rest()
                if event.id is not None:
                    if int(event.id) <= last:
                        continue
                    last = int(event.id)
                chunk += encode_event(event)
                # One write for many events. The write deadline applies to each chunk.
                if len(chunk) >= _CHUNK:
                    await reader.write(bytes(chunk))
                    chunk.clear()
            if chunk:
                await reader.write(bytes(chunk))


class _Reader:
    """One client of the stream."""

    def __init__(self, scope: Scope, send: Send, write_deadline_s: float) -> None:
        self._scope = scope
        self._send = send
        self._write_deadline_s = write_deadline_s
        self._stream: Stream | None = None
        self.gone = False

    async def watch(self, receive: Receive) -> None:
        """Close the stream when the client disconnects."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._stream is not None:
            self._stream.close()

    def follows(self, stream: Stream) -> None:
        """Close `stream` when the client disconnects."""
        self._stream = stream
        if self.gone:
            stream.close()

    async def begin(self) -> None:
        """Send the head of the reply."""
        begin_unsized(self._scope, self._send)
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})

    async def write(self, chunk: bytes) -> None:
        """Send a chunk. A client that makes no room for it in time is disconnected."""
        message = {"type": "http.response.body", "body": chunk, "more_body": True}
        await send_within(self._send, message, self._write_deadline_s)

    async def end(self) -> None:
        """Complete the reply."""
        end_unsized(self._send)
        message = {"type": "http.response.body", "body": b"", "more_body": False}
        await send_within(self._send, message, self._write_deadline_s)

    def hang_up(self) -> None:
        """Abort the reply, so that the client notices that it is incomplete."""
        hang_up(self._send)


def encode_event(event: BusEvent) -> bytes:
    """Return an event in text/event-stream format. JSON has no raw line break, so one data line is enough."""
    if event.spelt is None:
        head = f"event: {event.event}\n" if event.id is None else f"id: {event.id}\nevent: {event.event}\n"
        event.spelt = head.encode() + b"data: " + orjson.dumps(event.data, default=plain) + b"\n\n"
    return event.spelt


def first_position(asked: int | None, position: int) -> int:
    """Return the seq behind which a stream begins; `position` is the newest seq."""
    if asked is None:
        return position
    return asked if asked <= position else 0


def _reset(asked: int, position: int) -> BusEvent:
    text = (
        f"Position {asked} is past the end of this inbox, which is at {position}: the inbox was recreated or "
        "restored from a backup. All of its messages follow."
    )
    return BusEvent("reset", {"asked": asked, "position": position, "message": text})


def _asked(scope: Scope) -> int | None:
    """Return the seq to resume after. The header takes precedence: a browser repeats its query."""
    if scope["method"] not in ("GET", "HEAD"):
        raise method_not_allowed(["GET"])
    since: int | None = parse_query(scope["query_string"], [_SINCE])["since"]
    values = [value for name, value in scope["headers"] if name == _LAST_EVENT_ID]
    if not values:
        return since
    try:
        header: int = _SINCE.read(values[-1].decode("latin-1"))
    except ValueError:
        raise InvalidField(
            "invalid_header", "Last-Event-ID", "Last-Event-ID must be the id of an event."
        ) from None
    return header


def _build(group: EventRoutes, options: ServeOptions) -> App:
    return EventStreams(group, write_deadline_s=options.write_deadline_s)


ROUTES = (
    Route(
        "GET",
        "/v1/events",
        "Follow events, as server-sent events",
        {200: None},
        build=_build,
        query=(_SINCE,),
        headers=(
            HeaderField(
                "Last-Event-ID",
                {"type": "string"},
                "The last id received. Messages behind it come first; past the end, a `reset` event and all "
                "messages are.",
            ),
        ),
        content_type="text/event-stream",
        counted=False,
    ),
)
