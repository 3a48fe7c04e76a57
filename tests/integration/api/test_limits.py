"""Limits of the local API, the reply at each limit, and the headers of every reply."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.api import ApiRoutes, build_api
from claudemesh.daemon.api.send import SendRoutes, Submit
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.settings import DaemonSettings
from tests.integration.api.served import parse, row_of, served, until
from tests.support.values import replace

VALID = {"to": "bob", "message": "hi"}


class _Held:
    """Sends that wait for a signal, so that a test can fill the daemon."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.waiting = 0

    def wrap(self, routes: ApiRoutes) -> Any:
        async def submit(
            request: SendRequest, *, wait_ms: int | None = None, on_queued: Callable[[], None] | None = None
        ) -> Answer:
            self.waiting += 1
            await self.released.wait()
            return await routes.send.submit(request, wait_ms=wait_ms)

        return _with_submit(routes, submit)


def _with_submit(routes: ApiRoutes, submit: Submit) -> Any:
    return build_api(replace(routes, send=SendRoutes(submit=submit)))


async def test_the_65th_request_in_flight_is_busy(tmp_path: Path) -> None:
    """429 daemon_busy with Retry-After, no row; the 64 before are answered, and then there is room again."""
    held = _Held()
    async with served(tmp_path, wrap=held.wrap) as daemon:
        first = [asyncio.ensure_future(daemon.send(VALID)) for _ in range(64)]
        await until(lambda: held.waiting == 64)
        busy = await daemon.send(VALID)
        assert (busy.status, busy.error, busy.headers["retry-after"]) == (429, "daemon_busy", "1")
        assert (await daemon.ask("GET", "/v1/version")).status == 429
        held.released.set()
        assert {answer.status for answer in await asyncio.gather(*first)} == {202}
        assert (await daemon.send(VALID)).status == 202
        assert len(await daemon.rows()) == 65


async def test_a_client_that_leaves_gives_its_place_back(tmp_path: Path) -> None:
    """64 clients that vanish within their bodies do not fill the daemon for good."""
    async with served(tmp_path) as daemon:
        head = b"POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        guards: Any = daemon.app
        writers = []
        for _ in range(64):
            _, writer = await daemon.connect()
            writer.write(head + b"Content-Length: 100\r\n\r\n{")
            writers.append(writer)
        await until(lambda: guards.in_flight == 64)
        for writer in writers:
            writer.transport.abort()
        await until(lambda: guards.in_flight == 0)
        assert (await daemon.send(VALID)).status == 202


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/version", None),
        ("GET", "/v1/metrics", None),
        ("GET", "/v1/openapi.json", None),
        ("POST", "/v1/send", VALID),
        ("POST", "/v1/send", b"{"),
        ("GET", "/nowhere", None),
        ("PUT", "/v1/send", None),
        ("OPTIONS", "/v1/send", None),
    ],
)
async def test_every_answer_is_kept_by_nobody(tmp_path: Path, method: str, path: str, body: Any) -> None:
    """Cache-Control and nosniff on answers and errors alike; never a CORS header."""
    async with served(tmp_path) as daemon:
        answer = await daemon.ask(method, path, body)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not [name for name in answer.headers if name.startswith("access-control")]
        if answer.status >= 400:
            assert answer.error


async def test_an_allowed_origin_still_gets_no_cors_header(tmp_path: Path) -> None:
    """The setting opens the door, and says nothing to the browser."""
    settings = DaemonSettings(allowed_origins=("https://board.example",))
    async with served(tmp_path, settings=settings) as daemon:
        allowed = await daemon.ask("GET", "/v1/version", headers={"Origin": "https://board.example"})
        assert allowed.status == 200
        assert not [name for name in allowed.headers if name.startswith("access-control")]
        other = await daemon.ask("GET", "/v1/version", headers={"Origin": "https://evil.example"})
        assert (other.status, other.error) == (403, "origin_not_allowed")


async def test_a_token_in_a_url_is_a_security_event_that_does_not_hold_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """400, and the log names the event, not the secret."""
    async with served(tmp_path) as daemon:
        with caplog.at_level(logging.WARNING, logger="claudemesh.api.access"):
            answer = await daemon.ask("GET", "/v1/inbox?token=sup3r-s3cret")
        assert (answer.status, answer.error) == (400, "token_in_query")
        (record,) = [record for record in caplog.records if record.getMessage() == "security_event"]
        fields: Mapping[str, Any] = record.fields  # type: ignore[attr-defined]
        assert fields["reason"] == "token_in_query"
        assert "sup3r" not in json.dumps(fields)
        assert "sup3r" not in answer.body.decode()


async def test_a_door_with_a_token_opens_to_it_alone(tmp_path: Path) -> None:
    """Every route, health and metrics included; wrong, missing, doubled, huge or non-ASCII: never 500."""
    async with served(tmp_path, token=b"s3cret") as daemon:
        for path in ("/v1/health", "/v1/metrics", "/v1/version", "/v1/events", "/nowhere"):
            assert (await daemon.ask("GET", path)).status == 401
        for wrong in ("Bearer no", "Bearer é", "Bearer " + "x" * 8192, "Basic s3cret"):
            answer = await daemon.ask("GET", "/v1/version", headers={"Authorization": wrong})
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        right = {"Authorization": "Bearer s3cret"}
        assert (await daemon.ask("GET", "/v1/version", headers=right)).status == 200
        doubled = {**right, "authorization": "Bearer s3cret"}
        assert (await daemon.ask("GET", "/v1/version", headers=doubled)).status == 400
        cookie = {"Cookie": "token=s3cret"}
        assert (await daemon.ask("GET", "/v1/version", headers=cookie)).status == 401


async def test_a_page_of_large_messages_is_cut_with_a_link_to_the_rest(tmp_path: Path) -> None:
    """At most 10 MiB a response; following `next` reads everything once."""
    async with served(tmp_path) as daemon:
        await daemon.inbox.insert([row_of(f"{number} " + "x" * (900 << 10)) for number in range(15)])
        seen, path = [], "/v1/inbox?limit=500"
        while True:
            answer = await daemon.ask("GET", path)
            assert len(answer.body) <= 10 << 20
            seen += [item["body"].split()[0] for item in answer.json["items"]]
            if answer.json["next"] is None:
                break
            assert answer.headers["link"].endswith('; rel="next"')
            path = answer.headers["link"].split(">")[0].removeprefix("<")
        assert seen == [str(number) for number in range(15)]


async def test_a_client_that_does_not_read_a_large_answer_is_cut_off(tmp_path: Path) -> None:
    """Its place is free again, and nothing waits for it."""
    async with served(tmp_path, write_deadline_s=1) as daemon:
        await daemon.inbox.insert([row_of("x" * (1 << 20)) for _ in range(9)])
        guards: Any = daemon.app
        reader, writer = await daemon.connect()
        writer.transport.pause_reading()
        writer.write(b"GET /v1/inbox HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: guards.in_flight == 1)
        await until(lambda: guards.in_flight == 0)
        writer.transport.resume_reading()
        received = await reader.read(-1)
        assert len(received) < 9 << 20
        assert b"HTTP/1.1 200" in received[:20]
        writer.close()


async def test_an_unexpected_error_is_500_without_details(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """internal_error in the one shape; the log has the rest, and the daemon goes on."""

    def broken(routes: ApiRoutes) -> Any:
        async def submit(
            request: SendRequest, *, wait_ms: int | None = None, on_queued: Callable[[], None] | None = None
        ) -> Answer:
            raise RuntimeError("secret detail")

        return _with_submit(routes, submit)

    async with served(tmp_path, wrap=broken) as daemon:
        with caplog.at_level(logging.ERROR):
            answer = await daemon.send(VALID)
        assert (answer.status, answer.error) == (500, "internal_error")
        assert b"secret" not in answer.body
        assert "request_failed" in [record.getMessage() for record in caplog.records]
        assert (await daemon.ask("GET", "/v1/version")).status == 200


async def test_keep_alive_survives_a_refusal_of_a_small_body(tmp_path: Path) -> None:
    """A mistake costs the caller an answer, not its connection."""
    async with served(tmp_path) as daemon:
        reader, writer = await daemon.connect()
        for body, status in ((b"{", 400), (json.dumps(VALID).encode(), 202)):
            head = f"POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
            head_raw = await reader.readuntil(b"\r\n\r\n")
            length = int(parse(head_raw).headers["content-length"])
            await reader.readexactly(length)
            assert parse(head_raw).status == status
        writer.close()
