"""Blobs of a broker: uploads that resume, downloads, quotas, deletion (docs/spec/broker.md, Blobs)."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from claudemesh.broker.app import Broker
from claudemesh.broker.settings import Limits
from claudemesh.daemon.files.blob_server import BlobServer, OpenConnections, Part
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime import failpoints
from tests.support.blobs import begin, digest_of, exchange, fetch, get, put, refused, share
from tests.support.broker import create_mesh, join_mesh, running_broker
from tests.support.postgres import empty_database, sql
from tests.support.waiting import WAIT_S

DATA = random.Random(3).randbytes(3_000_001)
# The size of a part of a daemon: the broker does not read the rest of one that it refuses.
LONG = 32 << 20


@asynccontextmanager
async def _on_postgres(**settings: Any) -> AsyncGenerator[Broker]:
    async with empty_database() as url, running_broker(database_url=url, **settings) as broker:
        yield broker


ENGINES: dict[str, Callable[..., AbstractAsyncContextManager[Broker]]] = {
    "sqlite": running_broker,
    "postgres": _on_postgres,
}
both = pytest.mark.parametrize("engine", list(ENGINES))


@both
async def test_a_blob_that_is_uploaded_in_parts_is_downloaded_whole_by_another_member(engine: str) -> None:
    async with ENGINES[engine]() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as sending, bob.connect() as receiving:
            granted = await begin(sending, DATA)
            assert (granted["offset"], granted["complete"]) == (0, False)
            for first in range(0, len(DATA), 1 << 20):
                end = min(first + (1 << 20), len(DATA))
                status, answer = await put(broker, granted, DATA, first, end)
                assert (status, answer["offset"], answer["complete"]) == (200, end, end == len(DATA))
            assert await fetch(broker, receiving, granted["blob_id"]) == DATA
            again = await begin(sending, DATA)
            assert (again["blob_id"], again["offset"], again["complete"]) == (
                granted["blob_id"],
                len(DATA),
                True,
            )
        assert "cm_broker_blobs_completed_total 1.0" in broker.context.metrics.render().decode()


@both
async def test_a_download_goes_on_at_any_byte(engine: str) -> None:
    async with ENGINES[engine]() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            blob_id = await share(broker, link, DATA)
            ticket = (await link.call("blob_open", blob_id=blob_id))["ok"]["ticket"]
        for first, end in ((0, 24), (1_048_575, 1_048_577), (2_999_999, len(DATA)), (5, len(DATA))):
            status, headers, body = await get(broker, blob_id, ticket, range=f"bytes={first}-{end - 1}")
            assert (status, body == DATA[first:end]) == (206, True)
            assert headers["content-range"] == f"bytes {first}-{end - 1}/{len(DATA)}"
        status, _, body = await get(broker, blob_id, ticket, range=f"bytes={len(DATA)}-")
        assert (status, b"range_not_satisfiable" in body) == (416, True)
        status, _, body = await get(broker, blob_id, ticket, range="bytes=-5")
        assert (status, body == DATA) == (200, True)
        given = {"authorization": f"Bearer {ticket}"}
        status, headers, body = await exchange(broker.url, "HEAD", f"/v1/blobs/{blob_id}", given)
        assert (status, headers["content-length"], body) == (200, str(len(DATA)), b"")


@both
async def test_parts_that_overlap_or_come_again_are_taken_once_and_a_gap_is_answered_with_the_offset(
    engine: str,
) -> None:
    async with ENGINES[engine]() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            granted = await begin(link, DATA)
            status, answer = await put(broker, granted, DATA, 1_000_000)
            assert (status, answer["error"], answer["offset"]) == (416, "range_not_satisfiable", 0)
            for first, end in ((0, 1_000_000), (0, 1_000_000), (900_000, 1_500_000), (100_000, 200_000)):
                status, answer = await put(broker, granted, DATA, first, end)
                assert (status, answer["offset"] >= end) == (200, True)
            status, answer = await put(broker, granted, DATA, 1_500_001)
            assert (status, answer["offset"]) == (416, 1_500_000)
            status, answer = await put(broker, granted, DATA, 1_500_000)
            assert (status, answer["complete"]) == (200, True)
            status, answer = await put(broker, granted, DATA, len(DATA) - 1)
            assert (status, answer["complete"]) == (200, True)
            assert await fetch(broker, link, granted["blob_id"]) == DATA


@both
async def test_an_upload_that_was_cut_off_goes_on_behind_the_bytes_that_arrived(engine: str) -> None:
    async with ENGINES[engine]() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            granted = await begin(link, DATA)
            headers = {
                "authorization": f"Bearer {granted['ticket']}",
                "content-range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}",
            }
            host, port = broker.url.removeprefix("ws://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            head = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
            writer.write(
                f"PUT /v1/blobs/{granted['blob_id']} HTTP/1.1\r\nhost: {host}:{port}\r\n{head}"
                f"content-length: {len(DATA)}\r\n\r\n".encode()
                + DATA[:2_500_000]
            )
            await writer.drain()
            while (await begin(link, DATA))["offset"] < 2 << 20:
                pass
            writer.close()
            offset = (await begin(link, DATA))["offset"]
            status, answer = await put(broker, granted, DATA, offset)
            assert (status, answer["complete"]) == (200, True)
            assert await fetch(broker, link, granted["blob_id"]) == DATA


@both
async def test_bytes_with_another_hash_are_refused_and_the_upload_begins_again(engine: str) -> None:
    async with ENGINES[engine]() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            granted = await begin(link, DATA)
            status, answer = await put(broker, granted, bytes(len(DATA)))
            assert (status, answer["error"]) == (422, "blob_hash_mismatch")
            assert await refused(link, "blob_open", blob_id=granted["blob_id"]) == "blob_not_found"
            assert (await begin(link, DATA))["offset"] == 0
            assert await share(broker, link, DATA) == granted["blob_id"]


@both
async def test_only_owners_and_admins_delete_a_blob_and_it_is_gone_for_all(engine: str) -> None:
    async with ENGINES[engine]() as broker:
        ada = await create_mesh(broker)
        bob, eve = await join_mesh(ada, "bob"), await join_mesh(ada, "eve")
        async with ada.connect() as admin, bob.connect() as owner, eve.connect() as other:
            first, second = await share(broker, owner, DATA), await share(broker, owner, DATA[:70_000])
            ticket = (await other.call("blob_open", blob_id=first))["ok"]["ticket"]
            assert await refused(other, "blob_delete", blob_id=first) == "not_authorized"
            assert "ok" in await owner.call("blob_delete", blob_id=first)
            assert "ok" in await admin.call("blob_delete", blob_id=second)
            assert await refused(other, "blob_open", blob_id=first) == "blob_not_found"
            assert (await get(broker, first, ticket))[0] == 404
            assert await broker.context.store.blobs.stored() == {}


@both
async def test_an_announced_blob_is_attached_and_noted_as_fetched(engine: str) -> None:
    async with ENGINES[engine]() as broker:
        ada = await create_mesh(broker)
        bob = await join_mesh(ada, "bob")
        async with ada.connect() as sending, bob.connect() as receiving:
            blob_id = await share(broker, sending, DATA)
            envelope = ada.envelope(bob)
            wish = {"blob_id": blob_id, "client_message_id": envelope["client_message_id"]}
            assert await refused(sending, "blob_attach", **wish) == "not_found"
            assert (await sending.request(envelope))["status"] == 201
            assert await refused(receiving, "blob_attach", **wish) == "blob_not_found"
            assert "ok" in await sending.call("blob_attach", **wish, persistent=True)
            assert "ok" in await receiving.call("blob_fetched", blob_id=blob_id)
            blob = await broker.context.store.blobs.get(ada.mesh_id, blob_id)
            assert blob is not None
            assert (blob.attached, blob.persistent) == (True, True)


@both
async def test_uploads_beyond_a_limit_or_a_quota_are_refused(engine: str) -> None:
    limits = Limits(blob_uploads=2, blobs=3)
    settings = {"blob_bytes": 100_000, "blob_quota_bytes": 1_000_000}
    async with ENGINES[engine](limits=limits, **settings) as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            too_large = {"size": 100_100, "sha256": digest_of(b"")}
            assert await refused(link, "blob_begin", **too_large) == "blob_too_large"
            await share(broker, link, DATA[:90_000])
            await begin(link, DATA[:90_001])
            wish = {"size": 90_002, "sha256": digest_of(b"other")}
            assert await refused(link, "blob_begin", **wish) == "mesh_quota_exceeded"
            await begin(link, DATA[:10])
            assert await refused(link, "blob_begin", **wish) == "too_many_uploads"
            await share(broker, link, DATA[:10])
            assert await refused(link, "blob_begin", **wish) == "too_many_blobs"


async def test_two_brokers_of_a_database_serve_each_others_uploads() -> None:
    async with (
        empty_database() as url,
        running_broker(database_url=url) as one,
        running_broker(database_url=url) as two,
    ):
        ada = await create_mesh(one)
        async with ada.connect() as link:
            granted = await begin(link, DATA)
        assert (await put(one, granted, DATA, 0, 1_000_000))[1]["offset"] == 1_000_000
        assert (await put(two, granted, DATA, 1_000_000, 2_000_000))[1]["offset"] == 2_000_000
        status, answer = await put(one, granted, DATA, 2_000_000)
        assert (status, answer["complete"]) == (200, True)
        async with ada.connect() as link:
            ticket = (await link.call("blob_open", blob_id=granted["blob_id"]))["ok"]["ticket"]
        for broker in (one, two):
            assert (await get(broker, granted["blob_id"], ticket))[2] == DATA


async def test_the_bytes_of_an_embedded_broker_are_private_files(tmp_path: Path) -> None:
    async with running_broker(data_dir=tmp_path) as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            blob_id = await share(broker, link, DATA)
            granted = await begin(link, DATA[:70_000])
            await put(broker, granted, DATA[:70_000], 0, 65_536)
        folder = tmp_path / "blobs"
        assert folder.stat().st_mode & 0o777 == 0o700
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
        assert modes == {blob_id: 0o600, f"{granted['blob_id']}.part": 0o600}


def _raising(name: str, code: int) -> Callable[[str], None]:
    """Return a handler of failpoints that fails at one as a disk does."""

    def strike(point: str) -> None:
        if point == name:
            raise OSError(code, os.strerror(code))

    return strike


async def test_a_full_disk_is_507_and_the_upload_goes_on_when_there_is_space() -> None:
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            granted = await begin(link, DATA)
            assert (await put(broker, granted, DATA, 0, 1_000_000))[0] == 200
            failpoints.install(_raising("blob.after_sync", errno.ENOSPC))
            try:
                status, answer = await put(broker, granted, DATA, 1_000_000)
            finally:
                failpoints.install(None)
            assert (status, answer["error"]) == (507, "insufficient_storage")
            assert broker.context.degraded.conditions.holds("blobs_failing")
            again = await begin(link, DATA)
            assert again["blob_id"] == granted["blob_id"]
            status, answer = await put(broker, granted, DATA, min(again["offset"], len(DATA) - 1))
            if status == 416:
                status, answer = await put(broker, granted, DATA, answer["offset"])
            assert (status, answer["complete"]) == (200, True)
            assert await fetch(broker, link, granted["blob_id"]) == DATA


async def test_a_daemon_whose_long_part_is_refused_reads_the_cause() -> None:
    """The broker ends the connection behind its answer, and the rest of the part is not read."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            granted = await begin(link, bytes(LONG))
            server = BlobServer(broker.url.replace("http", "ws"), None, OpenConnections())

            def send() -> None:
                part = Part(0, LONG, LONG)
                pieces = (memoryview(bytes(1 << 20)) for _ in range(LONG >> 20))
                with server.connect() as connection:
                    connection.put(granted["blob_id"], granted["ticket"], part, pieces)

            failpoints.install(_raising("blob.after_write", errno.ENOSPC))
            try:
                with pytest.raises(ProtocolError, match="The disk of the broker is full") as caught:
                    await asyncio.to_thread(send)
            finally:
                failpoints.install(None)
            assert caught.value.code == "insufficient_storage"


async def test_a_disk_that_fails_is_503_and_no_byte_behind_the_last_sync_counts() -> None:
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            granted = await begin(link, DATA)
            failpoints.install(_raising("blob.after_write", errno.EIO))
            try:
                status, answer = await put(broker, granted, DATA)
            finally:
                failpoints.install(None)
            assert (status, answer["error"]) == (503, "storage_unavailable")
            assert (await begin(link, DATA))["offset"] == 0
            assert await share(broker, link, DATA) == granted["blob_id"]


async def test_each_call_about_a_blob_says_that_the_disk_is_full_and_works_when_there_is_space() -> None:
    async with empty_database() as url, running_broker(database_url=url) as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            blob_id = await share(broker, link, DATA)
            envelope = ada.envelope(ada)
            assert (await link.request(envelope))["status"] == 201
            attached = {"blob_id": blob_id, "client_message_id": envelope["client_message_id"]}
            calls: dict[str, dict[str, Any]] = {
                "blob_begin": {"size": 70_000, "sha256": digest_of(b"another")},
                "blob_attach": attached,
                "blob_fetched": {"blob_id": blob_id},
                "blob_delete": {"blob_id": blob_id},
            }
            await sql(
                url,
                """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                   $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$""",
                *(
                    f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE OR DELETE ON mesh.{table} "
                    "EXECUTE FUNCTION full_disk()"
                    for table in ("blob", "blob_recipient")
                ),
                "SELECT 1",
            )
            for method, params in calls.items():
                assert await refused(link, method, **params) == "insufficient_storage", method
            assert broker.context.degraded.conditions.holds("blobs_failing")
            assert await fetch(broker, link, blob_id) == DATA
            await sql(url, "DROP FUNCTION full_disk CASCADE", "SELECT 1")
            for method, params in calls.items():
                assert "ok" in await link.call(method, **params), method


async def test_a_blob_whose_file_cannot_be_removed_is_deleted_all_the_same() -> None:
    """The row goes first, so a second call would find nothing. The sweep finds the file."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            blob_id = await share(broker, link, DATA)
            path = broker.settings.data_dir / "blobs" / blob_id
            path.unlink()
            path.mkdir()
            reply = await link.call("blob_delete", blob_id=blob_id)
            assert reply["ok"] == {"blob_id": blob_id, "deleted": True}
            assert await refused(link, "blob_open", blob_id=blob_id) == "blob_not_found"
            assert await broker.context.store.blobs.strays() == {blob_id}


async def test_a_download_without_keep_alive_is_counted_whole() -> None:
    """The server ends such a connection itself, and its client has not gone."""
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            blob_id = await share(broker, link, DATA)
            ticket = (await link.call("blob_open", blob_id=blob_id))["ok"]["ticket"]
        status, _, body = await get(broker, blob_id, ticket, connection="close")
        assert (status, body == DATA) == (200, True)
        metrics = broker.context.metrics
        async with asyncio.timeout(WAIT_S):
            while metrics.blob_transfers._value.get():  # noqa: ASYNC110 - the broker has no event
                await asyncio.sleep(0.01)
        assert metrics.blob_bytes.labels("down")._value.get() == len(DATA)


async def test_a_blob_is_read_no_further_for_a_client_that_has_gone() -> None:
    """A download costs the broker what its client takes, also when it is begun again and again."""
    data = bytes(24 << 20)
    async with running_broker() as broker:
        ada = await create_mesh(broker)
        async with ada.connect() as link:
            blob_id = await share(broker, link, data)
            ticket = (await link.call("blob_open", blob_id=blob_id))["ok"]["ticket"]
            address = urlsplit(broker.url)
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            lines = (
                f"GET /v1/blobs/{blob_id} HTTP/1.1",
                f"host: {address.netloc}",
                f"authorization: Bearer {ticket}",
            )
            writer.write("\r\n".join((*lines, "", "")).encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.transport.abort()
            metrics = broker.context.metrics
            async with asyncio.timeout(WAIT_S):
                while metrics.blob_transfers._value.get():  # noqa: ASYNC110 - the broker has no event
                    await asyncio.sleep(0.01)
            assert metrics.blob_bytes.labels("down")._value.get() < len(data)
            assert not broker.context.degraded.conditions.holds("blobs_failing")
            assert await fetch(broker, link, blob_id) == data
