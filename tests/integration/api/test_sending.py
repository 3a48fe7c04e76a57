"""POST /v1/send and /v1/topic/post over the socket, against the real outbox."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from claudemesh.runtime.failpoints import install
from claudemesh.runtime.web.routes import MAX_BODY
from tests.integration.api.served import Served, served
from tests.support.waiting import WAIT_S

VALID = {"to": "bob", "message": "hi"}
ULID = "01J0000000000000000000000Z"


async def test_a_send_is_accepted_and_its_row_is_there(tmp_path: Path) -> None:
    """202 means that the row is written."""
    async with served(tmp_path) as daemon:
        answer = await daemon.send({**VALID, "client_message_id": "one"})
        assert answer.status == 202
        assert answer.json == {"status": "queued", "client_message_id": "one"}
        assert [row["client_message_id"] for row in await daemon.rows()] == ["one"]


async def test_a_send_without_an_id_is_given_one(tmp_path: Path) -> None:
    """Every answer has client_message_id."""
    async with served(tmp_path) as daemon:
        answer = await daemon.send(VALID)
        assert len(answer.json["client_message_id"]) == 26


async def test_the_header_names_the_send_before_the_body_does(tmp_path: Path) -> None:
    """Idempotency-Key wins over client_message_id."""
    async with served(tmp_path) as daemon:
        answer = await daemon.send({**VALID, "client_message_id": "body"}, {"Idempotency-Key": "header"})
        assert answer.json["client_message_id"] == "header"
        assert [row["client_message_id"] for row in await daemon.rows()] == ["header"]


async def test_the_same_id_and_send_is_one_row_another_send_is_a_conflict(tmp_path: Path) -> None:
    """202 again for a match; 409 with the prefix for a mismatch, and nothing written."""
    async with served(tmp_path) as daemon:
        first = await daemon.send({**VALID, "client_message_id": "x"})
        again = await daemon.send({**VALID, "client_message_id": "x"})
        other = await daemon.send({**VALID, "client_message_id": "x", "message": "other"})
        assert (first.status, again.status, other.status) == (202, 202, 409)
        assert other.error == "idempotency_key_reused"
        assert other.json["conflict"] == "outbox_pending_fingerprint_mismatch"
        assert len(other.json["daemon_fingerprint_prefix"]) == 16
        assert len(await daemon.rows()) == 1


async def test_callers_at_once_with_one_id_leave_one_row(tmp_path: Path) -> None:
    """Twenty at once, half with another text: one fingerprint wins, the others hear 409."""
    async with served(tmp_path) as daemon:
        bodies = [{**VALID, "client_message_id": "x", "message": f"{n % 2}"} for n in range(20)]
        answers = await asyncio.gather(*map(daemon.send, bodies))
        assert sorted(answer.status for answer in answers) == [202] * 10 + [409] * 10
        assert len(await daemon.rows()) == 1


async def test_a_topic_post_is_accepted(tmp_path: Path) -> None:
    """The topic may have its #, and is checked as a name."""
    async with served(tmp_path) as daemon:
        answer = await daemon.ask("POST", "/v1/topic/post", {"topic": "#all", "message": "hi"})
        assert answer.status == 202
        refused = await daemon.ask("POST", "/v1/topic/post", {"topic": "NO", "message": "hi"})
        assert (refused.status, refused.json["field"]) == (400, "topic")


async def test_an_unknown_name_is_not_found_with_near_matches(tmp_path: Path) -> None:
    """404, and whom the caller may have meant; the id is not consumed."""
    async with served(tmp_path) as daemon:
        answer = await daemon.send({"to": "bobb", "message": "hi", "client_message_id": "x"})
        assert (answer.status, answer.error) == (404, "destination_not_found")
        assert "bob" in json.dumps(answer.json)
        assert await daemon.rows() == []


async def test_waiting_ends_with_what_is_known(tmp_path: Path) -> None:
    """Without a broker ?wait_ms= answers that it is queued, when its time is up."""
    async with served(tmp_path) as daemon:
        answer = await daemon.ask("POST", "/v1/send?wait_ms=20", {**VALID, "client_message_id": "x"})
        assert (answer.status, answer.json["status"]) == (202, "queued")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/send?wait_ms=30001", "wait_ms"),
        ("/v1/send?wait_ms=-1", "wait_ms"),
        ("/v1/send?wait_ms=1&wait_ms=1", "wait_ms"),
        ("/v1/send?wait=1", "wait"),
    ],
)
async def test_a_wrong_query_leaves_no_row(tmp_path: Path, path: str, field: str) -> None:
    """400 with the field."""
    async with served(tmp_path) as daemon:
        answer = await daemon.ask("POST", path, VALID)
        assert (answer.status, answer.json["field"]) == (400, field)
        assert await daemon.rows() == []


def _field_cases() -> list[tuple[str, Any]]:
    wrong: dict[str, list[Any]] = {
        "to": [
            None,
            1,
            True,
            [],
            {},
            "",
            "@",
            "#",
            "queue:",
            "a b",
            "a\u0000b",
            "x" * 64,
            "#UP",
            "\N{SNOWMAN}",
        ],
        "message": [None, 1, True, [], {}],
        "priority": [1, True, [], {}, "", "urgent", "NOW", "now "],
        "meta": [1, True, "x", [], {"n": 1 << 60}],
        "reply_to_id": [1, True, [], {}, "", "x", ULID.lower(), ULID + "\n", ULID + "0"],
        "mentions": [1, True, "bob", {}, [1], [None], ["a b"], [""], ["bob"] * 65, [["bob"]]],
        "client_message_id": [1, True, [], {}, "", "a b", "é", "a\n", "a" * 256, "a" * 10_000, " x"],
    }
    return [(field, value) for field, values in wrong.items() for value in values]


async def test_every_field_of_a_send_is_checked(tmp_path: Path) -> None:
    """Wrong type, empty, too long, control characters: 400 with the field; no row, ever."""
    async with served(tmp_path) as daemon:
        for field, value in _field_cases():
            answer = await daemon.send({**VALID, field: value})
            case = (field, value, answer.json)
            assert answer.status == 400, case
            assert answer.error, case
            assert str(answer.json["field"]).startswith(field), case
        for missing in VALID:
            answer = await daemon.send({name: value for name, value in VALID.items() if name != missing})
            assert (answer.status, answer.json["field"]) == (400, missing)
        assert await daemon.rows() == []


NOT_STRICT: list[tuple[bytes, str | None]] = [
    (b"", "invalid_json"),
    (b"{", "invalid_json"),
    (b"to=bob&message=hi", "invalid_json"),
    (b"\xef\xbb\xbf" + json.dumps(VALID).encode(), "invalid_json"),
    (json.dumps(VALID).encode("utf-16"), "invalid_json"),
    (json.dumps(VALID).encode("utf-32-le"), "invalid_json"),
    (b'{"to":"bob","message":"\xff"}', "invalid_json"),
    (b'{"to":"bob","message":"\xed\xa0\x80"}', "invalid_json"),
    (b'{"to":"bob","message":"\\ud800"}', "invalid_json"),
    (b'{"to":"bob","message":"a\x00b"}', "invalid_json"),
    (b'{"to":"bob","message":"hi"} x', "invalid_json"),
    (b'{"to":"bob","message":"hi","meta":{"a":NaN}}', "meta_not_canonical"),
    (b'{"to":"bob","message":"hi","meta":{"a":1e999}}', "meta_not_canonical"),
    (b'{"to":"bob","message":"hi","meta":{"a":-Infinity}}', "meta_not_canonical"),
    (b'{"to":"bob","message":"hi","meta":{"a":123456789012345678901234567890}}', "meta_not_canonical"),
    (b'{"to":"bob","message":"hi","meta":{"a":' + b"9" * 5000 + b"}}", None),
    (b'{"to":"bob","to":"bob","message":"hi"}', "duplicate_field"),
    (b'{"to":"bob","message":"hi","meta":{"a":1,"a":2}}', "duplicate_field"),
    (b'{"to":"bob","message":"hi","meta":{"a":' + b"[" * 64 + b"]" * 64 + b"}}", "json_too_deep"),
    (b"[" * 100_000, "json_too_deep"),
    (b'{"a":' * 100_000, "json_too_deep"),
    (b'{"to":"bob","message":"hi","x":1}', "unknown_field"),
    (b'{"to":"bob","message":"hi","topic":"all"}', "unknown_field"),
    (b'{"to":"bob","message":"hi","\\u0000":1}', "unknown_field"),
    (b"[]", "invalid_body"),
    (b"null", "invalid_body"),
    (b"true", "invalid_body"),
    (b'"bob"', "invalid_body"),
    (b"1e400", None),
]


async def test_what_is_not_strict_json_leaves_no_row(tmp_path: Path) -> None:
    """400 with a stable code, never 500, and the daemon answers on."""
    async with served(tmp_path) as daemon:
        for raw, code in NOT_STRICT:
            answer = await daemon.send(raw)
            assert answer.status == 400, raw[:80]
            assert code in (None, answer.error), raw[:80]
        assert await daemon.rows() == []
        assert (await daemon.send(VALID)).status == 202


async def test_an_unknown_field_is_named_with_what_is_allowed(tmp_path: Path) -> None:
    """400 unknown_field."""
    async with served(tmp_path) as daemon:
        answer = await daemon.send({**VALID, "mesage": "x"})
        assert (answer.status, answer.error, answer.json["field"]) == (400, "unknown_field", "mesage")
        assert "client_message_id" in answer.json["message"]


@pytest.mark.parametrize("key", ["", "a b", "é", "a" * 256, "a\x01"])
async def test_a_malformed_idempotency_key_is_refused(tmp_path: Path, key: str) -> None:
    """Nothing is trimmed or cut into another id."""
    async with served(tmp_path) as daemon:
        answer = await daemon.send({**VALID, "client_message_id": "good"}, {"Idempotency-Key": key})
        assert answer.status == 400
        assert await daemon.rows() == []


async def test_two_idempotency_keys_are_refused(tmp_path: Path) -> None:
    """It would be open which of them applies."""
    async with served(tmp_path) as daemon:
        answer = await daemon.send(VALID, {"Idempotency-Key": "a", "idempotency-key": "b"})
        assert (answer.status, answer.error) == (400, "duplicate_header")
        assert await daemon.rows() == []


async def test_text_in_any_language_is_kept_as_it_is(tmp_path: Path) -> None:
    """NFC and NFD, bidi, U+2028, astral: not normalised, so two spellings are two sends."""
    async with served(tmp_path) as daemon:
        for number, text in enumerate(
            ["é", "e\u0301", "\u202eabc", "\u2028", "\U0001f600", "\u0000\u001b[0m", ""]
        ):
            body = {**VALID, "message": text, "client_message_id": f"t{number}"}
            assert (await daemon.send(body)).status == 202, text
            assert (await daemon.send(body)).status == 202, text
        twin = {**VALID, "message": "e\u0301", "client_message_id": "t0"}
        assert (await daemon.send(twin)).status == 409


async def test_a_body_past_one_mebibyte_is_too_large(tmp_path: Path) -> None:
    """413 with the limit, and the same connection goes on."""
    async with served(tmp_path) as daemon:
        answer = await daemon.send(b'"' + b"x" * MAX_BODY + b'"')
        assert (answer.status, answer.error, answer.json["limit"]) == (413, "payload_too_large", MAX_BODY)
        assert await daemon.rows() == []


async def test_a_message_past_what_the_broker_takes_goes_as_a_file(tmp_path: Path) -> None:
    """Within 1 MiB, but past inline_bytes: 202, no row until the broker has it, and the id is taken."""
    async with served(tmp_path) as daemon:
        long = {**VALID, "message": "x" * (600 << 10), "client_message_id": "x"}
        for _ in range(2):
            answer = await daemon.send(long)
            assert (answer.status, answer.json) == (202, {"status": "queued", "client_message_id": "x"})
        assert await daemon.rows() == []
        other = await daemon.send({**long, "message": "y" * (600 << 10)})
        assert (other.status, other.error) == (409, "idempotency_key_reused")


async def test_a_client_that_leaves_before_its_answer_leaves_the_row(tmp_path: Path) -> None:
    """The row is durable or absent; here it is durable, and the retry says so."""
    async with served(tmp_path) as daemon:
        body = json.dumps({**VALID, "client_message_id": "gone"}).encode()
        _, writer = await daemon.connect()
        head = f"POST /v1/send?wait_ms=200 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        await _until_row(daemon, "gone")
        writer.transport.abort()
        again = await daemon.send({**VALID, "client_message_id": "gone"})
        assert (again.status, len(await daemon.rows())) == (202, 1)


async def test_a_client_that_leaves_while_its_commit_runs_leaves_the_row(tmp_path: Path) -> None:
    """The commit is complete, and the store continues to work for all other requests."""
    async with served(tmp_path) as daemon:
        loop, writers = asyncio.get_running_loop(), []

        def leave(name: str) -> None:
            if name == "submit.before_commit":
                loop.call_soon_threadsafe(writers[0].transport.abort)

        install(leave)
        try:
            _, writer = await daemon.connect()
            writers.append(writer)
            body = json.dumps({**VALID, "client_message_id": "torn"}).encode()
            head = f"POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
            await _until_row(daemon, "torn")
        finally:
            install(None)
        assert (await daemon.send({**VALID, "client_message_id": "torn"})).status == 202
        assert (await daemon.send({**VALID, "client_message_id": "next"})).status == 202
        assert len(await daemon.rows()) == 2


async def test_a_client_that_leaves_within_its_body_leaves_nothing(tmp_path: Path) -> None:
    """Half a request is none."""
    async with served(tmp_path) as daemon:
        raw = b"POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        _, writer = await daemon.connect()
        writer.write(raw + b"Content-Length: 500\r\n\r\n" + b'{"to":"bob"')
        await writer.drain()
        writer.transport.abort()
        assert (await daemon.send({**VALID, "client_message_id": "x"})).status == 202
        assert len(await daemon.rows()) == 1


async def test_sends_on_one_connection_are_answered_in_order(tmp_path: Path) -> None:
    """Keep-alive and pipelining."""
    async with served(tmp_path) as daemon:
        reader, writer = await daemon.connect()
        for number in range(3):
            body = json.dumps({**VALID, "client_message_id": f"p{number}"}).encode()
            head = f"POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        received = b""
        while received.count(b"HTTP/1.1 202") < 3 or not received.endswith(b"}"):
            received += await asyncio.wait_for(reader.read(65536), WAIT_S)
        writer.close()
        assert received.index(b'"p0"') < received.index(b'"p1"') < received.index(b'"p2"')


async def _until_row(daemon: Served, client_message_id: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while await daemon.outbox.find(client_message_id) is None:
            pass


def batch(*items: dict[str, Any]) -> dict[str, Any]:
    """A batch of sends to bob."""
    return {"items": [{"to": "bob", **item} for item in items]}


async def test_a_batch_is_accepted_in_its_order_and_each_item_has_its_answer(tmp_path: Path) -> None:
    """A wrong item, an unknown name and a reused id take nothing from the others."""
    async with served(tmp_path) as daemon:
        sends = [{"message": f"{n}", "client_message_id": f"m-{n}"} for n in range(100)]
        wrong = [
            {"message": 1},
            {"message": "x", "to": "bobb"},
            {"message": "other", "client_message_id": "m-3"},
        ]
        body = batch(*sends[:50], *wrong, *sends[50:])
        answer = await daemon.ask("POST", "/v1/send/batch", body)
        items = answer.json["items"]
        assert (answer.status, [item["http_status"] for item in items[50:53]]) == (200, [400, 404, 409])
        assert [item["error"] for item in items[50:53]] == [
            "invalid_field",
            "destination_not_found",
            "idempotency_key_reused",
        ]
        accepted = [(item["http_status"], item["client_message_id"]) for item in items[:50] + items[53:]]
        assert accepted == [(202, f"m-{n}") for n in range(100)]
        rows = [row["client_message_id"] for row in await daemon.rows()]
        assert rows == [f"m-{n}" for n in range(100)]
        again = (await daemon.ask("POST", "/v1/send/batch", batch(*sends))).json["items"]
        assert {item["http_status"] for item in again} == {202}
        assert len(await daemon.rows()) == 100


@pytest.mark.parametrize("body", [{}, {"items": []}, {"items": [{}] * 257}, {"items": [VALID], "x": 1}])
async def test_a_batch_of_another_shape_is_refused_whole(tmp_path: Path, body: dict[str, Any]) -> None:
    """400, and nothing is written."""
    async with served(tmp_path) as daemon:
        assert (await daemon.ask("POST", "/v1/send/batch", body)).status == 400
        assert await daemon.rows() == []
        wrong = await daemon.ask("POST", "/v1/send/batch", {"items": [3]})
        assert [item["http_status"] for item in wrong.json["items"]] == [400]
