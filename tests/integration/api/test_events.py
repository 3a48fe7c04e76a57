"""GET /v1/events: replay, then live, without gap or duplicate (docs/spec/daemon.md, Events)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from claudemesh.daemon.api import ApiRoutes, build_api
from claudemesh.daemon.api.access import AccessControl, AccessRules
from claudemesh.daemon.api.events import EventStreams
from claudemesh.daemon.app import Daemon
from claudemesh.daemon.bus import STREAM_LIMIT, BusEvent
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.home.paths import DaemonPaths
from tests.integration.api.served import EventReader, Served, join, parse, served, until
from tests.support.waiting import WAIT_S


def streams(**limits: float) -> Callable[[ApiRoutes], Any]:
    """The event streams alone behind their guards, with other times."""
    return lambda routes: AccessControl(EventStreams(routes.events, **limits), AccessRules())


async def test_live_messages_come_with_their_seq_as_id(tmp_path: Path) -> None:
    """Without a place to resume from, a stream begins now."""
    async with served(tmp_path) as daemon:
        await daemon.receive("before")
        stream = await EventReader.open(daemon)
        assert b"content-type: text/event-stream" in stream.head
        assert b"cache-control: no-store" in stream.head
        assert await stream.until_live() == []
        await daemon.receive("after")
        event_id, name, data = await stream.next()
        assert (event_id, name, data["body"], data["seq"]) == ("2", "message", "after", 2)
        stream.close()


@pytest.mark.parametrize(("query", "header"), [("?since=2", None), ("", "2"), ("?since=0", "2")])
async def test_a_stream_resumes_behind_the_last_id(tmp_path: Path, query: str, header: str | None) -> None:
    """Last-Event-ID wins over ?since=, which a browser repeats at every reconnect."""
    async with served(tmp_path) as daemon:
        await daemon.receive("1", "2", "3", "4")
        stream = await EventReader.open(daemon, query, header)
        assert await stream.until_live() == ["3", "4"]
        stream.close()


async def test_a_replay_longer_than_a_read_is_whole(tmp_path: Path) -> None:
    """1,250 messages, more than the bus would hold, each once and in order."""
    async with served(tmp_path) as daemon:
        texts = [str(number) for number in range(1250)]
        await daemon.receive(*texts)
        stream = await EventReader.open(daemon, "?since=0")
        assert await stream.until_live() == texts
        stream.close()


async def test_messages_that_arrive_during_a_replay_come_once_and_in_order(tmp_path: Path) -> None:
    """A writer goes on while readers join at every moment of it: no gap, no duplicate for any of them."""
    async with served(tmp_path) as daemon:
        total = 1500
        texts = [str(number) for number in range(total)]
        await daemon.receive(*texts[:300])

        async def write() -> None:
            for start in range(300, total, 20):
                await daemon.receive(*texts[start : start + 20])

        async def follow(resume_at: int) -> list[str]:
            stream = await EventReader.open(daemon, f"?since={resume_at}")
            bodies = await stream.bodies(total - resume_at)
            stream.close()
            return bodies

        writing = asyncio.ensure_future(write())
        followed = await asyncio.gather(*(follow(number * 40) for number in range(8)))
        await writing
        for number, bodies in enumerate(followed):
            assert bodies == texts[number * 40 :]


async def test_a_message_both_stored_and_published_late_comes_once(tmp_path: Path) -> None:
    """Committed before the stream joined, published after it replayed: the seq tells."""
    async with served(tmp_path) as daemon:
        await daemon.receive("1", "2")
        stream = await EventReader.open(daemon, "?since=0")
        assert await stream.until_live() == ["1", "2"]
        daemon.bus.publish([BusEvent("message", {"body": "2"}, "2")])
        await daemon.receive("3")
        assert await stream.bodies(1) == ["3"]
        stream.close()


async def test_other_events_come_without_an_id(tmp_path: Path) -> None:
    """They are not stored, so they do not move the reader's place."""
    async with served(tmp_path) as daemon:
        stream = await EventReader.open(daemon)
        await stream.until_live()
        daemon.bus.publish([BusEvent("peer_join", {"name": "bob"}), BusEvent("outbox_dead", {"id": "x"})])
        assert await stream.next() == (None, "peer_join", {"name": "bob"})
        assert await stream.next() == (None, "outbox_dead", {"id": "x"})
        stream.close()


@pytest.mark.parametrize(
    ("query", "header", "field"),
    [
        ("?since=x", None, "since"),
        ("?since=-1", None, "since"),
        ("?since=9223372036854775808", None, "since"),
        ("?from=bob", None, "from"),
        ("", "x", "Last-Event-ID"),
        ("", "-1", "Last-Event-ID"),
        ("", "", "Last-Event-ID"),
        ("", "99999999999999999999", "Last-Event-ID"),
        ("", "٥", "Last-Event-ID"),
    ],
)
async def test_a_malformed_place_is_refused(
    tmp_path: Path, query: str, header: str | None, field: str
) -> None:
    """400 with the field; a reader that is wrong must not silently begin now."""
    async with served(tmp_path) as daemon:
        headers = {} if header is None else {"Last-Event-ID": header.encode().decode("latin-1")}
        answer = await daemon.ask("GET", f"/v1/events{query}", headers=headers)
        assert (answer.status, answer.json["field"]) == (400, field)


async def test_a_position_past_the_end_shows_everything_and_says_so(tmp_path: Path) -> None:
    """The inbox was recreated or restored: a stream that waited for its old position would be silent."""
    async with served(tmp_path) as daemon:
        await daemon.receive("1", "2")
        stream = await EventReader.open(daemon, last_event_id="300")
        blocks = [await stream.next() for _ in range(2)]
        event_id, name, data = blocks[1]
        assert (event_id, name, data["asked"], data["position"]) == (None, "reset", 300, 2)
        assert await stream.until_live() == ["1", "2"]
        await daemon.receive("3")
        assert await stream.bodies(1) == ["3"]
        stream.close()


async def test_the_position_of_a_pruned_message_is_not_past_the_end(tmp_path: Path) -> None:
    """Every seq that was given counts, also when the newest messages are gone."""
    async with served(tmp_path) as daemon:
        await daemon.receive("1", "2", "3")
        await daemon.inbox._db.transaction(lambda raw: raw.execute("DELETE FROM inbox"))
        stream = await EventReader.open(daemon, "?since=3")
        assert await stream.until_live() == []
        await daemon.receive("4")
        assert await stream.next() == ("4", "message", ANY)
        stream.close()


async def test_a_stream_names_its_position_before_anything_else(tmp_path: Path) -> None:
    """A client that is cut off before its first event resumes from there, for any requested position."""
    async with served(tmp_path) as daemon:
        await daemon.receive("1", "2", "3")
        for query, position in (("", "3"), ("?since=1", "1"), ("?since=9", "0")):
            stream = await EventReader.open(daemon, query)
            first = (await stream.block()).splitlines()
            assert (first[0].partition(":")[0], first[1]) == ("retry", f"id: {position}")
            stream.close()


async def test_a_quiet_stream_is_kept_open_by_comments(tmp_path: Path) -> None:
    """Every 15 s in the product, sooner here."""
    async with served(tmp_path, wrap=streams(comment_every_s=0.02)) as daemon:
        stream = await EventReader.open(daemon)
        await stream.until_live()
        assert await stream.next() == (None, "", "still here")
        assert await stream.next() == (None, "", "still here")
        await daemon.receive("1")
        assert await stream.bodies(1) == ["1"]
        stream.close()


async def _until_open(daemon: Served, count: int) -> None:
    guards: Any = daemon.app
    dispatch = guards._app
    events = dispatch if isinstance(dispatch, EventStreams) else dispatch.bare["/v1/events"]
    await until(lambda: events.open == count)


async def test_the_33rd_stream_is_one_too_many(tmp_path: Path) -> None:
    """429 too_many_streams; one that closes makes room; streams take no request's place."""
    async with served(tmp_path) as daemon:
        open_streams = [await EventReader.open(daemon) for _ in range(32)]
        answer = await daemon.ask("GET", "/v1/events")
        assert (answer.status, answer.error) == (429, "too_many_streams")
        assert (await daemon.send({"to": "bob", "message": "hi"})).status == 202
        open_streams.pop().close()
        await _until_open(daemon, 31)
        again = await EventReader.open(daemon)
        assert b" 200 " in again.head[:15]
        for stream in (*open_streams, again):
            stream.close()
        await _until_open(daemon, 0)


async def test_a_reader_that_stops_reading_is_cut_off_and_holds_nobody_up(tmp_path: Path) -> None:
    """Others read on at full speed; the slow one resumes by its id and misses nothing."""
    async with served(tmp_path, wrap=streams(write_deadline_s=3)) as daemon:
        slow = await EventReader.open(daemon)
        await slow.until_live()
        slow.writer.transport.pause_reading()
        quick = await EventReader.open(daemon)
        await quick.until_live()
        texts = [f"{number} " + "x" * 20_000 for number in range(200)]
        for text in texts:
            await daemon.receive(text)
        assert await quick.bodies(200) == texts
        await _until_open(daemon, 1)
        slow.writer.transport.resume_reading()
        seen = 0
        try:
            while True:
                event_id, name, _ = await slow.next()
                seen = int(event_id or seen) if name else seen
        except (EOFError, ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        assert seen < 200
        resumed = await EventReader.open(daemon, last_event_id=str(seen))
        assert await resumed.until_live() == texts[seen:]
        for stream in (slow, quick, resumed):
            stream.close()


async def test_a_reader_that_lets_too_many_events_wait_is_cut_off(tmp_path: Path) -> None:
    """Past what the bus holds for one reader the stream ends, and the client knows its place."""
    async with served(tmp_path) as daemon:
        stream = await EventReader.open(daemon)
        await stream.until_live()
        daemon.bus.publish(BusEvent("peer_join", {"n": n}) for n in range(STREAM_LIMIT + 1))
        assert await stream.ended()
        await _until_open(daemon, 0)


async def test_a_reader_that_leaves_gives_its_place_back(tmp_path: Path) -> None:
    """Also in the middle of its replay."""
    async with served(tmp_path) as daemon:
        await daemon.receive(*("x" * 100_000 for _ in range(150)))
        stream = await EventReader.ask(daemon, "?since=0")
        stream.writer.transport.pause_reading()
        await _until_open(daemon, 1)
        stream.writer.transport.abort()
        await _until_open(daemon, 0)


async def test_streams_end_when_the_daemon_stops(tmp_path: Path) -> None:
    """Every stream ends properly, and stopping waits for none of them."""
    paths = DaemonPaths(tmp_path / "h", "demo")
    join(paths)
    daemon = Daemon(paths, DaemonSettings())
    await daemon.start()
    stream = await EventReader.open(Served(daemon.routes, paths.sock, build_api(daemon.routes)))
    await stream.until_live()
    async with asyncio.timeout(WAIT_S):
        await daemon.stop()
    assert await stream.ended()


async def test_another_page_may_not_listen(tmp_path: Path) -> None:
    """An EventSource of some web page is refused like any request of it."""
    async with served(tmp_path, wrap=build_api) as daemon:
        raw = await daemon.raw(
            b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n"
        )
        assert parse(raw).status == 403


async def test_a_stream_to_a_client_of_http_1_0_has_no_chunks_and_ends_with_the_connection(
    tmp_path: Path,
) -> None:
    """HTTP/1.0 knows no chunks: their lengths would be lines of the stream."""
    async with served(tmp_path) as daemon:
        await daemon.receive("1", "2")
        reader, writer = await daemon.connect()
        writer.write(b"GET /v1/events?since=0 HTTP/1.0\r\nHost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        replayed = await reader.readuntil(b": live\n\n")
        lines = replayed.decode().splitlines()
        assert {line.partition(":")[0] for line in lines} == {"retry", "id", "event", "data", ""}
        assert replayed.count(b"event: message\n") == 2
        daemon.bus.close()
        assert await reader.read() == b""
        writer.close()
