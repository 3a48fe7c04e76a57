"""Fetching of files and texts: ids that two senders have chosen, wrong bytes, and full disks."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.files.fetching import Fetching, FetchParts
from claudemesh.daemon.files.texts import WholeTexts
from claudemesh.daemon.files.threads import Threads
from claudemesh.daemon.inbox.attached import encode_attachments
from claudemesh.daemon.inbox.store import InboxRow, InboxStore
from claudemesh.protocol.attachments import Attachment
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime import failpoints
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.services import TaskOwner
from tests.support.blob_host import BlobHost, answer
from tests.support.clock import ManualClock
from tests.support.daemon import new_ulid
from tests.support.inbox import inbox_row
from tests.support.sealed_files import sealed_file
from tests.support.values import replace

FILE_ID = "01HZ0000000000000000000000"


class Bench:
    """A host that has received messages with files; the blobs are in the hands of the test."""

    def __init__(self, folder: Path, inbox: InboxStore, executor: ThreadPoolExecutor) -> None:
        self.inbox = inbox
        self.blobs: dict[str, bytes] = {}
        # The first byte of each request.
        self.firsts: list[int] = []
        # Requests that are refused as broker_busy.
        self.busy = 0
        self.host = BlobHost(self._give)
        self.host.replies["blob_open"] = lambda params: self._opened(params["blob_id"])
        self.tasks = TaskOwner()
        self.fetching = Fetching(
            FetchParts(
                home=folder / "home",
                files=inbox.files,
                ask=self.host.ask,
                server=self.host.server,
                threads=Threads(executor, executor),
                tasks=self.tasks,
                clock=ManualClock(),
                backoff=Backoff(initial_s=0.01, cap_s=0.01),
            )
        )
        self.texts = WholeTexts(folder / "texts", inbox.files, self.fetching)

    async def receive(self, sender: str, content: bytes, *, is_text: bool = False) -> str:
        """Receive a message that announces a file under the one id; return the message's id."""
        blob_id = f"{len(self.blobs):032x}"
        file, self.blobs[blob_id] = sealed_file(content, file_id=FILE_ID, blob_id=blob_id, is_text=is_text)
        message_id = new_ulid()
        await self.inbox.insert([_row(message_id, sender, file)])
        return message_id

    async def get(self, message_id: str | None, out: Path) -> bytes:
        """Fetch a file, and return what was written."""
        answer = await self.fetching.fetch(FILE_ID, message_id, str(out), 30_000)
        assert answer.status == 200, answer
        return out.read_bytes()

    async def shown(self, message_id: str) -> object:
        """The text of a message, as it is shown."""
        item = await self.inbox.get(message_id)
        assert item is not None
        return (await self.texts.complete(item))["body"]

    def _opened(self, blob_id: str) -> Mapping[str, Any]:
        blob = self.blobs[blob_id]
        return {"ticket": "t", "size": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}

    def _give(self, request: BaseHTTPRequestHandler) -> None:
        if self.busy:
            self.busy -= 1
            answer(request, 503, {"error": "broker_busy", "message": "Busy."})
            return
        blob = self.blobs[request.path.rsplit("/", 1)[1]]
        first, last = request.headers["range"].removeprefix("bytes=").split("-")
        self.firsts.append(int(first))
        part = blob[int(first) : int(last) + 1]
        request.send_response(206)
        request.send_header("Content-Length", str(len(part)))
        request.end_headers()
        request.wfile.write(part)


def _row(message_id: str, sender: str, file: Attachment) -> InboxRow:
    return inbox_row(
        id=message_id,
        client_message_id=message_id,
        sender_member_id=sender,
        broker_message_id=message_id,
        sender_name=sender,
        attachments=encode_attachments([file]),
    )


@asynccontextmanager
async def bench(folder: Path) -> AsyncGenerator[Bench]:
    """A host and its broker."""
    inbox = await InboxStore.open(folder / "inbox.db", ManualClock())
    executor = ThreadPoolExecutor(2)
    made = Bench(folder, inbox, executor)
    try:
        with made.host:
            yield made
    finally:
        await made.tasks.stop()
        executor.shutdown()
        await inbox.close()


async def test_a_text_is_shown_under_its_own_sender_though_another_uses_the_id_of_its_file(
    tmp_path: Path,
) -> None:
    """Mallory knows the id from a topic, and its message is shown first."""
    async with bench(tmp_path) as made:
        honest = await made.receive("alice", b"from alice", is_text=True)
        forged = await made.receive("mallory", b"from mallory", is_text=True)
        for _ in range(2):
            assert await made.shown(forged) == "from mallory"
            assert await made.shown(honest) == "from alice"


async def test_a_file_id_of_two_members_is_refused_until_the_message_is_named(tmp_path: Path) -> None:
    """The error names both messages."""
    async with bench(tmp_path) as made:
        forged = await made.receive("mallory", b"from mallory")
        honest = await made.receive("alice", b"from alice")
        with pytest.raises(ProtocolError, match="file_id_ambiguous") as caught:
            await made.get(None, tmp_path / "out")
        assert caught.value.fields["message_ids"] == [forged, honest]
        assert await made.get(honest, tmp_path / "honest") == b"from alice"
        assert await made.get(forged, tmp_path / "forged") == b"from mallory"


async def test_a_file_that_its_sender_announces_again_is_one_file(tmp_path: Path) -> None:
    """A message that was sent again after a restore."""
    async with bench(tmp_path) as made:
        for _ in range(2):
            await made.receive("alice", b"from alice")
        assert await made.get(None, tmp_path / "out") == b"from alice"


async def test_a_note_that_a_file_was_fetched_is_sent_until_the_broker_has_answered_it(
    tmp_path: Path,
) -> None:
    """Its answer may be lost with the link; after the answer nothing more is sent."""
    async with bench(tmp_path) as made:
        made.host.replies["blob_fetched"] = ProtocolError("broker_unavailable", "Away.")
        await made.receive("alice", b"from alice")
        await made.get(None, tmp_path / "out")
        await made.tasks.join()
        made.host.replies["blob_fetched"] = {}
        for _ in range(2):
            made.fetching.tell()
            await made.tasks.join()
        assert [method for method, _ in made.host.calls if method == "blob_fetched"] == ["blob_fetched"] * 2


async def test_a_blob_that_is_gone_is_not_noted_for_ever_and_is_shown_as_failed(tmp_path: Path) -> None:
    """The broker has lost it, or has deleted it after a month."""
    async with bench(tmp_path) as made:
        await made.receive("alice", b"from alice")
        made.host.replies["blob_open"] = ProtocolError("blob_not_found", "None.")
        with pytest.raises(ProtocolError, match="at most 30 days") as caught:
            await made.get(None, tmp_path / "out")
        assert caught.value.code == "blob_not_found"
        assert [method for method, _ in made.host.calls] == ["blob_open"]
        assert list(tmp_path.glob(".*.part")) == []
        [item] = [one.item() for one in await made.inbox.files.page(None, 9)]
        assert (item["state"], item["error"]) == ("announced", "blob_not_found")
        made.host.replies["blob_open"] = lambda params: made._opened(params["blob_id"])
        made.host.replies["blob_fetched"] = ProtocolError("blob_not_found", "None.")
        await made.get(None, tmp_path / "out")
        await made.tasks.join()
        made.fetching.tell()
        await made.tasks.join()
        assert [method for method, _ in made.host.calls if method == "blob_fetched"] == ["blob_fetched"]
        [item] = [one.item() for one in await made.inbox.files.page(None, 9)]
        assert (item["state"], item["error"]) == ("fetched", None)


async def test_a_broker_that_is_busy_with_files_is_asked_again(tmp_path: Path) -> None:
    """It carries a bounded number of them at a time."""
    async with bench(tmp_path) as made:
        await made.receive("alice", b"from alice")
        made.busy = 1
        assert await made.get(None, tmp_path / "out") == b"from alice"
        assert [method for method, _ in made.host.calls if method == "blob_open"] == ["blob_open"] * 2


async def test_a_full_disk_ends_a_download_that_goes_on_when_there_is_space(tmp_path: Path) -> None:
    """The answer says so, nothing has the name, and the chunks on the disk are not fetched again."""
    content = os.urandom(2 << 20)

    def full(name: str) -> None:
        if name == "fetch.after_chunk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with bench(tmp_path) as made:
        await made.receive("alice", content)
        failpoints.install(full)
        try:
            with pytest.raises(ProtocolError, match="insufficient_storage"):
                await made.get(None, tmp_path / "out")
        finally:
            failpoints.install(None)
        assert not (tmp_path / "out").exists()
        kept = (tmp_path / f".{FILE_ID}.part").stat().st_size
        assert 0 < kept < len(content)
        assert await made.get(None, tmp_path / "out") == content
        assert made.firsts[-1] > kept


async def test_a_broker_that_delivers_wrong_bytes_once_is_asked_again_and_then_named(tmp_path: Path) -> None:
    """The caller of a file that is whole the second time sees nothing of it."""
    content = os.urandom(300_000)
    async with bench(tmp_path) as made:
        await made.receive("alice", content)
        [(blob_id, good)] = made.blobs.items()
        wrong = good[:-1] + bytes([good[-1] ^ 1])

        def open_good(params: Mapping[str, Any]) -> Mapping[str, Any]:
            answer = made._opened(blob_id)
            made.blobs[blob_id] = wrong if not made.firsts else good
            return answer

        made.host.replies["blob_open"] = open_good
        assert await made.get(None, tmp_path / "out") == content
        assert made.firsts == [0, 0]
        made.blobs[blob_id] = good
        digest = made._opened(blob_id)
        made.host.replies["blob_open"] = digest
        made.blobs[blob_id] = wrong
        with pytest.raises(ProtocolError, match="blob_changed") as caught:
            await made.get(None, tmp_path / "again")
        assert caught.value.fields["at_fault"] == "broker"
        assert not (tmp_path / "again").exists()


async def test_a_sender_that_announces_another_hash_of_its_blob_is_named(tmp_path: Path) -> None:
    """Its file is as announced, but the broker could not be judged by such a hash."""
    async with bench(tmp_path) as made:
        message_id = new_ulid()
        file, made.blobs["0" * 32] = sealed_file(b"content", file_id=FILE_ID, blob_id="0" * 32)
        await made.inbox.insert([_row(message_id, "mallory", replace(file, blob_sha256="0" * 64))])
        with pytest.raises(ProtocolError, match="file_wrong") as caught:
            await made.get(message_id, tmp_path / "out")
        assert caught.value.fields["at_fault"] == "sender"
