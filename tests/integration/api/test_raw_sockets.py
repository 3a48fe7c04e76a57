"""Bytes that no decent client sends: refused before they mean anything, and the daemon goes on."""

from __future__ import annotations

import asyncio
import json
import resource
from itertools import product
from pathlib import Path

import pytest

from claudemesh.daemon.api.app import ROUTES
from claudemesh.runtime.web.routes import MAX_BODY
from tests.integration.api.served import Served, parse, served

BODY = json.dumps({"to": "bob", "message": "hi", "client_message_id": "raw"}).encode()
POST = b"POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CLOSING = "Host: localhost\r\nConnection: close\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


async def refused(daemon: Served, raw: bytes, *statuses: int, case: str = "") -> None:
    """Check the status, that no row came of it, and that the daemon answers on."""
    received = await daemon.raw(raw)
    assert received.startswith(b"HTTP/1.1 "), (case, received[:200])
    assert int(received[9:12]) in statuses, (case, received[:300])
    assert b"Traceback" not in received
    assert await daemon.rows() == []
    assert (await daemon.ask("GET", "/v1/version")).status == 200


SMUGGLED = {
    "length and chunks": POST + LENGTH + CHUNKED + b"\r\n" + CHUNKS,
    "chunks and length": POST + CHUNKED + LENGTH + b"\r\n" + CHUNKS,
    "two equal lengths": POST + LENGTH + LENGTH + b"\r\n" + BODY,
    "two lengths": POST + LENGTH + b"Content-Length: 5\r\n\r\n" + BODY,
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\n" + BODY,
    "a signed length": POST + b"Content-Length: +%d\r\n\r\n" % len(BODY) + BODY,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + BODY,
    "an underscored length": POST + b"Content-Length: 1_0\r\n\r\n" + BODY,
    "a hexadecimal length": POST + b"Content-Length: 0x10\r\n\r\n" + BODY,
    "a length of other digits": POST + "Content-Length: ٥\r\n\r\n".encode() + BODY,
    "an empty length": POST + b"Content-Length: \r\n\r\n" + BODY,
    "a length past 64 bits": POST + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
    "a folded header": POST + b"X-Folded: a\r\n b\r\n" + LENGTH + b"\r\n" + BODY,
    "a folded length": POST + b"Content-Length:\r\n %d\r\n\r\n" % len(BODY) + BODY,
    "a space before the colon": POST + b"Content-Length : %d\r\n\r\n" % len(BODY) + BODY,
    "a NUL in a header": POST + b"X-A: a\x00b\r\n" + LENGTH + b"\r\n" + BODY,
    "a bare CR in a header": POST + b"X-A: a\rContent-Length: 5\r\n" + LENGTH + b"\r\n" + BODY,
    "an unknown transfer coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "a coding that is not last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + CHUNKS,
    "an identity coding": POST + b"Transfer-Encoding: identity\r\n" + LENGTH + b"\r\n" + BODY,
    "two codings": POST + CHUNKED + CHUNKED + b"\r\n" + CHUNKS,
    "a chunk size of other digits": POST + CHUNKED + b"\r\nzz\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a signed chunk size": POST + CHUNKED + b"\r\n+5\r\nhello\r\n0\r\n\r\n",
    "a chunk longer than told": POST + CHUNKED + b"\r\n1\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a huge chunk size": POST + CHUNKED + b"\r\nfffffffffffffffff\r\n",
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /v1/version\r\n\r\n",
    "an unknown version": b"GET /v1/version HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "a header without a name": POST + b": x\r\n" + LENGTH + b"\r\n" + BODY,
    "a space in the target": b"POST /v1/send /v1/send HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an unknown method": b"FROBNICATE /v1/send HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


async def test_a_request_that_two_readers_would_read_differently_is_refused(tmp_path: Path) -> None:
    """400 (413 or 505 where the head says so) and the connection ends; no row."""
    async with served(tmp_path) as daemon:
        for case, raw in SMUGGLED.items():
            await refused(daemon, raw, 400, 413, 505, case=case)


async def test_bare_line_feeds_are_no_second_request(tmp_path: Path) -> None:
    """A head with bare LF is refused, or read as the one request that it is; never as two."""
    async with served(tmp_path) as daemon:
        raw = (POST + LENGTH + b"Connection: close\r\n\r\n").replace(b"\r\n", b"\n") + BODY
        received = await daemon.raw(raw)
        assert received.count(b"HTTP/1.1 ") == 1
        assert len(await daemon.rows()) <= 1


async def test_a_smuggled_second_request_is_never_run(tmp_path: Path) -> None:
    """Bytes behind a body with both a length and chunks are not a request."""
    async with served(tmp_path) as daemon:
        inner = POST + LENGTH + b"\r\n" + BODY
        outer = b"POST /v1/heartbeat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        await refused(daemon, outer + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + inner, 400)


TARGETS = [
    (b"http://evil.example/v1/version", b"evil.example", 403),
    (b"http://localhost/v1/version", b"evil.example", 403),
    (b"http://localhost/v1/version", b"localhost", 200),
    (b"/v1/version", b"localhost:p@evil", 403),
    (b"/v1/version", b"localhost.", 403),
    (b"/v1/version", b"0.0.0.0:80", 403),
    (b"/v1/version", b"[::ffff:127.0.0.1]", 403),
    (b"//evil.example/v1/version", b"localhost", 404),
    (b"/v1/../v1/version", b"localhost", 404),
    (b"/v1/version/", b"localhost", 404),
    (b"/V1/VERSION", b"localhost", 404),
    (b"/", b"localhost", 404),
    (b"/v1/version%00", b"localhost", 404),
    (b"/v1/version;a=b", b"localhost", 404),
    (b"/v1/outbox/%ff", b"localhost", 400),
    (b"/v1/outbox/a%0ab", b"localhost", 400),
    (b"/v1/outbox/" + b"a" * 256, b"localhost", 400),
    (b"/v1/outbox/..%2f..%2fetc%2fpasswd", b"localhost", 404),
]


async def test_a_target_is_read_as_it_came(tmp_path: Path) -> None:
    """No redirects, no dot segments, no second spelling of a path; Host decides, not the target."""
    async with served(tmp_path) as daemon:
        for target, host, status in TARGETS:
            raw = await daemon.raw(b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            assert parse(raw).status == status, (target, host, raw[:300])


async def test_two_hosts_are_refused(tmp_path: Path) -> None:
    """403, as a single wrong one."""
    async with served(tmp_path) as daemon:
        raw = await daemon.raw(b"GET /v1/version HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n")
        assert (parse(raw).status, parse(raw).error) == (403, "host_not_allowed")


async def test_another_method_is_405_with_what_is_allowed(tmp_path: Path) -> None:
    """On bare routes and on the router's, with Allow; nothing is echoed."""
    async with served(tmp_path) as daemon:
        routes = (("/v1/send", "POST"), ("/v1/version", "GET, HEAD"), ("/v1/events", "GET, HEAD"))
        methods = ("TRACE", "PUT", "DELETE", "PATCH", "PROPFIND")
        for method, (path, allowed) in product(methods, routes):
            raw = await daemon.raw(f"{method} {path} HTTP/1.1\r\n{CLOSING}\r\n".encode())
            answer = parse(raw)
            assert (answer.status, answer.headers["allow"]) == (405, allowed)


async def test_head_is_answered_on_every_route_of_get_that_does_nothing(tmp_path: Path) -> None:
    """With the head of GET, the length of its body included, and without a body. A stream is not begun."""
    routes = [route for route in ROUTES if route.method == "GET" and "{" not in route.path]
    paths = [route.path for route in routes]
    assert {"/v1/health", "/v1/events", "/v1/openapi.json"} <= set(paths)
    # Topics, invites and the history are the broker's to list, and it is away.
    other = dict.fromkeys(("/v1/topic/list", "/v1/invites", "/v1/history"), b"503 Service Unavailable")
    other |= dict.fromkeys([route.path for route in routes if route.acts], b"405 Method Not Allowed")
    # It names no topic.
    other["/v1/topic/keyless"] = b"400 Bad Request"
    async with served(tmp_path) as daemon:
        for path in paths:
            raw = await daemon.raw(f"HEAD {path} HTTP/1.1\r\n{CLOSING}\r\n".encode())
            head, _, body = raw.partition(b"\r\n\r\n")
            status = other.get(path, b"200 OK")
            assert (head.split(b"\r\n")[0], body) == (b"HTTP/1.1 " + status, b""), path
        raw = await daemon.raw(f"HEAD /v1/send HTTP/1.1\r\n{CLOSING}\r\n".encode())
        assert raw.startswith(b"HTTP/1.1 405 ")


async def test_connect_is_no_way_through(tmp_path: Path) -> None:
    """The daemon is no proxy."""
    async with served(tmp_path) as daemon:
        await refused(
            daemon, b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, 403, 404, 405
        )


async def test_an_upgrade_is_not_taken(tmp_path: Path) -> None:
    """A WebSocket from a page meets the same guards, and no upgrade."""
    async with served(tmp_path) as daemon:
        head = b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        raw = await daemon.raw(head + b"Sec-WebSocket-Version: 13\r\nOrigin: https://evil.example\r\n\r\n")
        assert parse(raw).status == 403


async def test_a_length_that_lies_low_ends_in_400(tmp_path: Path) -> None:
    """The rest of the body is no request."""
    async with served(tmp_path) as daemon:
        raw = await daemon.raw(POST + b"Content-Length: 5\r\n\r\n" + BODY)
        assert raw.startswith(b"HTTP/1.1 400")
        assert await daemon.rows() == []


async def test_a_length_that_lies_high_keeps_nobody_waiting(tmp_path: Path) -> None:
    """The client goes, nothing is left; others are answered meanwhile."""
    async with served(tmp_path) as daemon:
        _, writer = await daemon.connect()
        writer.write(POST + b"Content-Length: 1000\r\n\r\n" + BODY)
        await writer.drain()
        assert (await daemon.ask("GET", "/v1/version")).status == 200
        writer.close()
        await writer.wait_closed()
        assert await daemon.rows() == []


async def test_a_body_that_does_not_come_times_out(tmp_path: Path) -> None:
    """408, and the connection ends: it does not occupy a place for long."""
    async with served(tmp_path, body_deadline_s=0.05) as daemon:
        raw = await daemon.raw(POST + b"Content-Length: 1000\r\n\r\n" + BODY)
        assert (parse(raw).status, parse(raw).error) == (408, "request_timeout")
        assert parse(raw).headers["connection"] == "close"


async def test_a_chunked_bomb_ends_at_one_mebibyte(tmp_path: Path) -> None:
    """413 and the end of the connection; memory stays flat."""
    async with served(tmp_path) as daemon:
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _, writer = await daemon.connect()
        writer.write(POST + CHUNKED + b"\r\n")
        piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        sent = 0
        with pytest.raises((ConnectionError, BrokenPipeError)):
            while sent < (64 << 20):
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
            raise AssertionError("64 MiB were taken")
        assert sent < 8 * MAX_BODY
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
        assert grown_kib < 32 << 10
        writer.close()
        assert (await daemon.ask("GET", "/v1/version")).status == 200


async def test_chunks_within_the_limit_are_one_body(tmp_path: Path) -> None:
    """Chunked is HTTP/1.1 like any other, trailers included, which mean nothing here."""
    async with served(tmp_path) as daemon:
        halves = b"%x\r\n%b\r\n%x\r\n%b\r\n" % (10, BODY[:10], len(BODY) - 10, BODY[10:])
        raw = await daemon.raw(POST + CHUNKED + b"\r\n" + halves + b"0\r\nX-Trailer: other\r\n\r\n")
        assert parse(raw).json["client_message_id"] == "raw"


async def test_a_body_over_one_mebibyte_in_chunks_is_413(tmp_path: Path) -> None:
    """The length was not told, so the connection ends."""
    async with served(tmp_path) as daemon:
        body = b"x" * (MAX_BODY + 1)
        raw = await daemon.raw(POST + CHUNKED + b"\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
        answer = parse(raw)
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert await daemon.rows() == []


async def test_a_gzip_body_is_not_unpacked(tmp_path: Path) -> None:
    """415."""
    async with served(tmp_path) as daemon:
        await refused(daemon, POST + LENGTH + b"Content-Encoding: gzip\r\n\r\n" + BODY, 415)


async def test_a_form_is_not_json(tmp_path: Path) -> None:
    """415: what a page can post without a preflight."""
    async with served(tmp_path) as daemon:
        for kind in (b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x"):
            head = b"POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + kind + b"\r\n" + LENGTH
            await refused(daemon, head + b"\r\n" + BODY, 415)


async def test_a_slow_head_costs_others_nothing(tmp_path: Path) -> None:
    """A hundred connections never finish their heads; all other requests are answered."""
    async with served(tmp_path) as daemon:
        slow = [await daemon.connect() for _ in range(100)]
        for _, writer in slow:
            writer.write(b"POST /v1/send HTT")
        answers = await asyncio.gather(*(daemon.ask("GET", "/v1/version") for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        for _, writer in slow:
            writer.close()
