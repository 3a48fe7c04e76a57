"""Uploads of shared files: one that fails holds up no other, and is not given up for a fault elsewhere."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.files.listing import FileLists
from claudemesh.daemon.files.sharing import Sharing, parse_share
from claudemesh.daemon.files.spool import Spool, SpoolLimits
from claudemesh.daemon.files.states import ShareState
from claudemesh.daemon.files.store import FilesStore, SharedFile
from claudemesh.daemon.files.texts import LongTexts
from claudemesh.daemon.files.threads import Threads
from claudemesh.daemon.files.uploads import UploadParts, Uploads
from claudemesh.daemon.inbox.attached import ReceivedFiles
from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.daemon.outbox.callers import WaitingCallers
from claudemesh.daemon.outbox.request import SendRequest, parse_send
from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime import failpoints
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.errors import StorageFull
from claudemesh.runtime.lived import LivedClock
from tests.support.blob_host import BlobHost, answer
from tests.support.clock import ManualClock
from tests.support.daemon import new_ulid
from tests.support.values import replace
from tests.support.waiting import WAIT_S

BLOB = "0" * 32
ACCEPTED = Answer(202, {"status": "queued"})


class Bench:
    """The files of a host, on real stores; the broker and the outbox are in the hands of the test."""

    def __init__(self, folder: Path, files: FilesStore, inbox: InboxStore, outbox: OutboxStore) -> None:
        self.folder = folder
        self.files = files
        self.executor = ThreadPoolExecutor(2)
        self.answer: Callable[[SendRequest], Answer] = lambda request: ACCEPTED
        self.is_restored = False
        self.spool = Spool(folder / "spool")
        self.host = BlobHost(lambda request: self.handle(request))
        self.handle: Callable[[BaseHTTPRequestHandler], None] = lambda request: answer(
            request, 200, {"offset": 0, "complete": True}
        )
        self.host.replies["blob_begin"] = {"blob_id": BLOB, "ticket": "t", "offset": 0}
        self.sharing = Sharing(
            folder / "home",
            files,
            self.spool,
            lambda: SpoolLimits(1 << 24, 1 << 26),
            self._gate,
            ManualClock(),
            new_ulid,
            self.executor,
        )
        self.uploads = Uploads(
            UploadParts(
                store=files,
                spool=self.spool,
                outbox=outbox,
                callers=WaitingCallers(),
                submit=self._submit,
                may_come_back=lambda error: self.is_restored,
                ask=self.host.ask,
                is_connected=lambda: True,
                server=self.host.server,
                threads=Threads(self.executor, self.executor),
                backoff=Backoff(initial_s=0.01, cap_s=0.01),
            )
        )
        self.lists = FileLists(
            store=files,
            received=ReceivedFiles(inbox.database),
            spool=self.spool,
            uploads=self.uploads,
            threads=Threads(self.executor, self.executor),
            ask=self.host.ask,
        )

    async def share(self, name: str, content: bytes = b"content") -> SharedFile:
        """Share a file, under its name as the id."""
        (self.folder / name).write_bytes(content)
        body = {"path": str(self.folder / name), "to": "bob", "client_message_id": name}
        assert (await self.sharing.share(parse_share(body))).status == 202
        return await self.now(name)

    async def now(self, name: str) -> SharedFile:
        """The row of a file."""
        found = await self.files.by_send(name)
        assert found is not None
        return found

    async def _submit(self, request: SendRequest) -> Answer:
        return self.answer(request)

    async def _gate(self, request: SendRequest, client_message_id: str) -> Answer | None:
        return None


@asynccontextmanager
async def bench(folder: Path) -> AsyncGenerator[Bench]:
    """A host that shares files."""
    files = await FilesStore.open(folder / "files.db")
    clock = ManualClock()
    inbox = await InboxStore.open(folder / "inbox.db", clock, None, LivedClock(clock))
    outbox = await OutboxStore.open(folder / "outbox.db")
    made = Bench(folder, files, inbox, outbox)
    try:
        with made.host:
            yield made
    finally:
        made.executor.shutdown()
        for store in (files, inbox, outbox):
            await store.close()


async def test_a_file_whose_step_fails_holds_up_no_other(tmp_path: Path) -> None:
    """Neither for a refusal that is raised, nor for a fault of the program."""
    async with bench(tmp_path) as made:
        for name in ("refused", "faulty", "good"):
            await made.share(name)

        def judge(request: SendRequest) -> Answer:
            if request.client_message_id == "refused":
                raise ProtocolError("cannot_reseal", "No.")
            if request.client_message_id == "faulty":
                raise RuntimeError("a fault")
            return ACCEPTED

        made.answer = judge
        for _ in range(4):
            await made.uploads.round()
        states = {name: (await made.now(name)).state for name in ("refused", "faulty", "good")}
        assert states == {
            "refused": ShareState.ANNOUNCING,
            "faulty": ShareState.ANNOUNCING,
            "good": ShareState.ATTACHING,
        }
        assert (await made.now("refused")).error == "cannot_reseal: No."


async def test_a_blob_that_was_changed_on_its_way_is_sent_again_while_the_copy_is_good(
    tmp_path: Path,
) -> None:
    """A damaged copy is given up, and the file says so."""
    async with bench(tmp_path) as made:
        file = await made.share("file")
        made.handle = lambda request: answer(
            request, 422, {"error": "blob_hash_mismatch", "message": "Other bytes."}
        )
        await made.uploads.round()
        found = await made.now("file")
        assert found.state is ShareState.UPLOADING and "other bytes" in (found.error or "")
        copy = made.spool.path(file.file_id)
        copy.write_bytes(copy.read_bytes()[:-1] + b"\0")
        await made.uploads.round()
        found = await made.now("file")
        assert found.state is ShareState.FAILED and "damaged" in (found.error or "")
        assert not copy.exists()


async def test_an_announcement_waits_for_a_destination_that_a_restored_broker_has_lost(
    tmp_path: Path,
) -> None:
    """Otherwise a refusal for good ends the file."""
    async with bench(tmp_path) as made:
        await made.share("file")
        made.answer = lambda request: Answer(404, {"error": "destination_not_found", "message": "No bob."})
        made.is_restored = True
        for _ in range(2):
            await made.uploads.round()
        assert (await made.now("file")).state is ShareState.ANNOUNCING
        made.is_restored = False
        await made.uploads.round()
        assert (await made.now("file")).state is ShareState.FAILED


async def test_a_deletion_that_fails_lets_the_upload_go_on(tmp_path: Path) -> None:
    """The broker was away, so the file is still the one that was accepted."""
    async with bench(tmp_path) as made:
        file = await made.share("file")
        made.host.replies["blob_delete"] = ProtocolError("broker_unavailable", "Away.")
        await made.files.note(file, blob_id=BLOB, error=None)
        with pytest.raises(ProtocolError, match="broker_unavailable"):
            await made.lists.delete(file.file_id)
        await made.uploads.round()
        assert (await made.now("file")).state is ShareState.ANNOUNCING


async def test_a_file_that_is_deleted_during_its_upload_leaves_no_blob(tmp_path: Path) -> None:
    """The id of the blob was not known when it was deleted."""
    async with bench(tmp_path) as made:
        file = await made.share("file", os.urandom(1 << 20))
        upload = made.host.ask

        async def ask(method: str, params: object, read: object) -> object:
            if method == "blob_begin":
                await made.lists.delete(file.file_id)
            return await upload(method, params, read)  # type: ignore[arg-type]

        made.uploads._parts = replace(made.uploads._parts, ask=ask)  # type: ignore[arg-type]
        await made.uploads.round()
        assert (await made.now("file")).state is ShareState.DELETED
        assert ("blob_delete", {"blob_id": BLOB}) in made.host.calls
        await made.uploads.round()


async def test_a_full_disk_at_the_commit_leaves_no_copy(tmp_path: Path) -> None:
    """Nothing was accepted, so nothing takes space."""
    async with bench(tmp_path) as made:

        def fail(name: str) -> None:
            if name == "share.before_commit":
                raise StorageFull("no space is left")

        failpoints.install(fail)
        try:
            with pytest.raises(StorageFull):
                await made.share("file")
        finally:
            failpoints.install(None)
        assert os.listdir(tmp_path / "spool") == []
        await made.share("file")


async def test_a_repeated_share_of_a_file_that_will_not_leave_says_so(tmp_path: Path) -> None:
    """Given up, or deleted. An answer as to a file on its way would be waited for."""
    async with bench(tmp_path) as made:
        made.host.replies["blob_begin"] = ProtocolError("blob_too_large", "Too large.")
        await made.share("large")
        await made.uploads.round()
        await made.share("deleted")
        await made.lists.delete((await made.now("deleted")).file_id)
        for name, cause in (
            ("large", "blob_too_large: Too large. Send it again"),
            ("deleted", "was deleted"),
        ):
            body = {"path": str(tmp_path / name), "to": "bob", "client_message_id": name}
            found = await made.sharing.share(parse_share(body))
            assert (found.status, found.body["error"]) == (409, "idempotency_key_reused")
            assert cause in found.body["message"]


async def test_a_send_does_not_take_the_id_of_a_file(tmp_path: Path) -> None:
    """The id belongs to the file from its acceptance on, though the outbox does not know it yet."""
    async with bench(tmp_path) as made:
        await made.share("taken")
        texts = LongTexts(lambda request, **options: made._submit(request), made.sharing, lambda: 1 << 10)
        send = {"to": "bob", "message": "short", "client_message_id": "taken"}
        refused = await texts.submit(parse_send(send))
        assert (refused.status, refused.body["error"]) == (409, "idempotency_key_reused")
        assert (await texts.submit(parse_send({**send, "client_message_id": "free"}))).status == 202
        made.answer = lambda request: Answer(413, {"error": "payload_too_large"})
        for _ in range(2):
            long = await texts.submit(
                parse_send({"to": "bob", "message": "long " * 9999, "client_message_id": "text"})
            )
            assert long.body == {"status": "queued", "client_message_id": "text"}
        assert {file.client_message_id for file in await made.files.open_files()} == {"taken", "text"}


async def test_the_text_of_an_announcement_is_dropped_three_days_after_its_end(tmp_path: Path) -> None:
    """Name, destination and fingerprint stay, so that a retry is answered as before; open files keep all."""
    async with bench(tmp_path) as made:
        await made.share("open")
        file = await made.share("over")
        await made.files.move(file, ShareState.FAILED, error="No.")
        assert await made.files.drop_requests(1000, 500, 9) == 1
        assert "message" in (await made.now("over")).request
        assert await made.files.drop_requests(1499, 500, 9) == 0
        assert await made.files.drop_requests(1501, 500, 9) == 1
        assert await made.files.drop_requests(9999, 500, 9) == 0
        assert (await made.now("over")).request == {"to": "bob"}
        assert "message" in (await made.now("open")).request
        again = await made.sharing.share(
            parse_share({"path": str(tmp_path / "over"), "to": "bob", "client_message_id": "over"})
        )
        assert again.body["file_id"] == file.file_id
        assert [item["name"] for item in (await made.lists.page("out", None, 9))[0]] == ["over", "open"]


async def test_a_large_file_does_not_hold_up_a_small_one(tmp_path: Path) -> None:
    """A file that comes during an upload has its turn behind the present part, and the upload goes on."""
    async with bench(tmp_path) as made:
        large = await made.share("large", os.urandom(1_000_000))
        loop = asyncio.get_running_loop()
        made.uploads._parts = replace(made.uploads._parts, part_bytes=300_000)
        taken: dict[str, int] = {}
        order: list[str] = []

        def begin(params: Mapping[str, Any]) -> Mapping[str, Any]:
            blob_id = f"{params['size']:032d}"
            return {"blob_id": blob_id, "ticket": "t", "offset": taken.get(blob_id, 0)}

        def put(request: BaseHTTPRequestHandler) -> None:
            blob_id = request.path.rsplit("/", 1)[1]
            part, _, total = request.headers["content-range"].removeprefix("bytes ").partition("/")
            taken[blob_id] = int(part.split("-")[1]) + 1
            order.append("large" if int(total) == large.blob_size else "small")
            if len(order) == 1:
                asyncio.run_coroutine_threadsafe(made.share("small"), loop).result(WAIT_S)
                loop.call_soon_threadsafe(made.uploads.wake)
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(WAIT_S)
            whole = taken[blob_id] == int(total)
            answer(request, 200, {"offset": taken[blob_id], "complete": whole})

        made.host.replies["blob_begin"] = begin
        made.handle = put
        running = asyncio.create_task(made.uploads.run())
        async with asyncio.timeout(WAIT_S):
            while (await made.now("large")).state is ShareState.UPLOADING:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
        assert order == ["large", "small", "large", "large", "large"]
        assert (await made.now("small")).state is not ShareState.UPLOADING
