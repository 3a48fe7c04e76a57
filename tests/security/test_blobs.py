"""Attacks on blobs: foreign tickets, lying sizes, slow bodies, many uploads, ids that are paths."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from claudemesh.broker.app import Broker
from claudemesh.broker.blobs.tickets import TICKET_LIFE_MS
from claudemesh.broker.settings import Limits
from tests.support.blobs import begin, digest_of, exchange, fetch, get, put, refused, share
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.clock import ManualClock
from tests.support.values import replace

DATA = random.Random(5).randbytes(300_000)


async def stored(broker: Broker) -> int:
    """The number of rows of blobs."""
    return sum(one.blobs for one in (await broker.context.store.blobs.stored()).values())


async def test_a_ticket_is_of_no_use_for_another_blob_direction_or_mesh() -> None:
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        eve = await create_mesh(broker, "other")
        async with ada.connect() as link, eve.connect() as stranger:
            blob_id = await share(broker, link, DATA)
            other = await begin(link, DATA[:200_000])
            own = await begin(stranger, DATA[:100_000])
            down = (await link.call("blob_open", blob_id=blob_id))["ok"]["ticket"]
            for ticket in (own["ticket"], other["ticket"], "", "x.y", other["ticket"][:-2]):
                status, _, body = await get(broker, blob_id, ticket)
                assert (status, orjson.loads(body)["error"]) == (401, "ticket_invalid")
            status, answer = await put(broker, other | {"ticket": down}, DATA[:200_000])
            assert (status, answer["error"]) == (401, "ticket_invalid")
            status, answer = await put(broker, other | {"ticket": own["ticket"]}, DATA[:200_000])
            assert (status, answer["error"]) == (401, "ticket_invalid")
            assert await refused(stranger, "blob_open", blob_id=blob_id) == "blob_not_found"
            assert await refused(stranger, "blob_delete", blob_id=blob_id) == "blob_not_found"


async def test_a_ticket_ends_after_ten_minutes_and_with_its_member() -> None:
    clock = ManualClock()
    async with running_broker(clock=clock) as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as link:
            blob_id = await share(broker, link, DATA)
            async with bob.connect() as other:
                ticket = (await other.call("blob_open", blob_id=blob_id))["ok"]["ticket"]
                granted = await begin(other, DATA)
            assert (await get(broker, blob_id, ticket))[0] == 200
            await broker.context.store.members.set_status(bob.mesh_id, bob.member_id, "revoked")
            assert (await get(broker, blob_id, ticket))[0] == 401
            assert (await put(broker, granted, DATA))[0] == 401
            own = (await link.call("blob_open", blob_id=blob_id))["ok"]["ticket"]
            clock.advance(seconds=TICKET_LIFE_MS / 1000 + 1)
            status, _, body = await get(broker, blob_id, own)
            assert (status, orjson.loads(body)["error"]) == (401, "ticket_expired")


@pytest.mark.parametrize(
    "path",
    ["..%2f..%2fbroker.db", "../admin_token", "%2e%2e/admin_token", "x" * 32, "A" * 32, "", "a" * 33, "a/b"],
)
async def test_an_id_that_is_a_path_names_no_blob(path: str) -> None:
    async with running_broker() as broker:
        for method in ("GET", "PUT"):
            status, _, body = await exchange(broker.url, method, f"/v1/blobs/{path}", {})
            assert status == 404, body
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            for method in ("blob_open", "blob_delete", "blob_fetched"):
                assert await refused(link, method, blob_id="../admin_token") == "invalid_params"
                assert await refused(link, method, blob_id="broker") == "blob_not_found"


async def test_a_stranger_without_a_ticket_is_answered_before_its_body_and_writes_nothing(
    tmp_path: Path,
) -> None:
    async with running_broker(data_dir=tmp_path) as broker:
        path = f"/v1/blobs/{'a' * 32}"
        for method in ("PUT", "GET", "HEAD"):
            status, headers, _ = await exchange(
                broker.url, method, path, {}, length=1 << 40 if method == "PUT" else 0
            )
            assert status == 401
            if method == "PUT":
                assert headers["connection"] == "close"
        status, _, _ = await exchange(broker.url, "DELETE", path, {})
        assert status == 405
        assert not (tmp_path / "blobs").exists()


async def test_lying_lengths_and_ranges_change_no_byte_of_an_upload() -> None:
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            granted = await begin(link, DATA)
            size = len(DATA)
            for given in (
                f"bytes 0-{size}/{size}",
                f"bytes 0-{size - 1}/{size + 1}",
                "bytes 0-5/*",
                "nonsense",
            ):
                status, answer = await put(broker, granted, DATA, **{"content-range": given})
                assert (status, answer["error"]) == (400, "invalid_range")
            status, answer = await put(
                broker, granted, DATA, 0, 100_000, **{"content-range": f"bytes 0-99999/{size}"}
            )
            assert (status, answer["offset"]) == (200, 100_000)
            # The body is longer than the range that its head names.
            ranges = {"content-range": f"bytes 100000-{size - 2}/{size}"}
            status, answer = await put(broker, granted, DATA, 100_000, **ranges)
            assert (status, answer["error"]) == (400, "invalid_range")
            status, answer = await put(broker, granted, DATA, 100_000)
            assert (status, answer["complete"]) == (200, True)
            assert await fetch(broker, link, granted["blob_id"]) == DATA


async def test_a_slow_body_ends_its_connection_and_a_growing_one_does_not() -> None:
    limits = Limits(body_s=3.0, blob_floor=1000)
    async with running_broker(limits=limits) as broker:
        ada = await create_mesh(broker)
        host, port = broker.url.removeprefix("ws://").split(":")
        async with ada.connect() as link:
            for piece, is_slow in ((b"x", True), (bytes(2_000), False)):
                data = random.Random(len(piece)).randbytes(400_000)
                granted = await begin(link, data)
                reader, writer = await asyncio.open_connection(host, int(port))
                head = (
                    f"PUT /v1/blobs/{granted['blob_id']} HTTP/1.1\r\nhost: {host}:{port}\r\n"
                    f"authorization: Bearer {granted['ticket']}\r\nconnection: close\r\n"
                    f"content-range: bytes 0-399999/400000\r\ncontent-length: 400000\r\n\r\n"
                )
                writer.write(head.encode())
                answer = asyncio.create_task(reader.read())
                at = 0
                while at < len(data) and not answer.done():
                    writer.write(data[at : at + len(piece)])
                    at += len(piece)
                    await asyncio.wait([answer], timeout=0.03)
                try:
                    text = await answer
                except ConnectionError:
                    text = b""
                writer.close()
                assert (b'"complete":true' in text) is not is_slow
        assert 'guard_limits_total{limit="body_deadline"} 1.0' in broker.context.metrics.render().decode()


async def test_a_thousand_begun_uploads_leave_thirty_two_rows() -> None:
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as link, bob.connect() as other:
            for number in range(1000):
                await link.call("blob_begin", size=1, sha256=digest_of(str(number).encode()))
            assert await stored(broker) == 32
            await share(broker, other, DATA)


async def test_a_newer_part_of_an_upload_ends_an_older_one_that_is_stuck() -> None:
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        host, port = broker.url.removeprefix("ws://").split(":")
        async with ada.connect() as link:
            granted = await begin(link, DATA)
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                (
                    f"PUT /v1/blobs/{granted['blob_id']} HTTP/1.1\r\nhost: {host}:{port}\r\n"
                    f"authorization: Bearer {granted['ticket']}\r\n"
                    f"content-range: bytes 0-{len(DATA) - 1}/{len(DATA)}\r\n"
                    f"content-length: {len(DATA)}\r\n\r\n"
                ).encode()
                + DATA[:70_000]
            )
            while "blob_transfers 1.0" not in broker.context.metrics.render().decode():
                await link.call("send_status", client_message_ids=[])
            status, answer = await put(broker, granted, DATA)
            assert (status, answer["complete"]) == (200, True)
            with pytest.raises(ConnectionError):
                if not await reader.read():
                    raise ConnectionError
            writer.close()
            assert await fetch(broker, link, granted["blob_id"]) == DATA


async def test_more_requests_than_a_member_may_have_wait_and_keep_no_other_member_away() -> None:
    async with running_broker(limits=Limits(member_transfers=1)) as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as link, bob.connect() as other:
            granted = await begin(link, DATA)
            with broker.context.blobs.transfer(ada.member_id):
                status, answer = await put(broker, granted, DATA)
                assert (status, answer["error"]) == (503, "broker_busy")
                await share(broker, other, DATA)
            assert (await put(broker, granted, DATA))[0] == 200


async def test_bytes_without_a_row_are_kept_for_a_day_and_a_row_without_bytes_is_reported(
    tmp_path: Path,
) -> None:
    """A restore of the database alone, or of the folder alone, leaves one of them behind."""
    clock = ManualClock()
    async with running_broker(clock=clock, data_dir=tmp_path) as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            first, second = await share(broker, link, DATA), await share(broker, link, DATA[:100_000])
        folder = tmp_path / "blobs"
        with closing(sqlite3.connect(tmp_path / "broker.db")) as database:
            database.execute("DELETE FROM blob WHERE id = ?", (first,))
            database.commit()
        (folder / second).rename(tmp_path / "elsewhere")
        run = broker.context.jobs.run
        outcome = await run("blob-sweep")
        assert (outcome.count, outcome.found, (folder / first).exists()) == (0, 1, True)
        assert broker.context.degraded.conditions.holds("blob_bytes_missing")
        async with replace(ada).connect() as link:
            ticket = (await link.call("blob_open", blob_id=second))["ok"]["ticket"]
            assert (await get(broker, second, ticket))[0] == 404
        (tmp_path / "elsewhere").rename(folder / second)
        clock.advance(hours=25)
        outcome = await run("blob-sweep")
        assert (outcome.count, outcome.found, (folder / first).exists()) == (0, 0, False)
        assert not broker.context.degraded.conditions.holds("blob_bytes_missing")
        async with replace(ada).connect() as link:
            assert await fetch(broker, link, second) == DATA[:100_000]
