"""Downloads of announced files: one job for each file and target, which goes on when its caller has gone.

A download that a crash or a lost connection has ended resumes with the next request for the same target.
"""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from claudemesh.daemon.calls import Ask
from claudemesh.daemon.files.blob_server import BlobServer
from claudemesh.daemon.files.download import Download, Ticket, Unopened, check_size
from claudemesh.daemon.files.target import Target, cannot_write, open_target
from claudemesh.daemon.files.threads import Threads
from claudemesh.daemon.inbox.attached import ReceivedFile, ReceivedFiles
from claudemesh.daemon.outbox.states import Answer
from claudemesh.protocol.attachments import Attachment
from claudemesh.protocol.blob_replies import blob_noted, blob_opened
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner

log = get_logger("files")

MAX_JOBS = 64
# Attempts without a further byte, after which a download ends until it is asked for again.
_ATTEMPTS = 5
# Failures that another attempt may meet again: the file is not to be had as it was announced.
LASTING = frozenset({"blob_not_found", "blob_changed", "file_wrong"})
_TOLD_AT_ONCE = 100
# Refusals that another attempt need not meet again.
_AGAIN = frozenset({"ticket_expired", "ticket_invalid", "broker_busy"})


class FetchParts(Struct, frozen=True, kw_only=True):
    """The parts that downloads use.

    `server` returns the broker's blobs at the present address. `count` gets each download that ended, as
    `fetched` or with the code of its error, and the size of its file.
    """

    home: Path
    files: ReceivedFiles
    ask: Ask
    server: Callable[[], BlobServer]
    threads: Threads
    tasks: TaskOwner
    clock: Clock
    backoff: Backoff
    count: Callable[[str, int], None] = lambda status, size: None


class _Job(Struct):
    """A download under way. `attempt` is the present one, whose bytes count."""

    found: ReceivedFile
    done: asyncio.Future[Answer]
    attempt: Download | None = None

    # The work on the thread, once there is one.
    thread: Future[Any] | None = None

    def close_after(self, target: Target) -> None:
        """Close a target when the thread is done with it."""
        if self.thread is None:
            target.close()
        else:
            self.thread.add_done_callback(lambda _: target.close())

    @property
    def received(self) -> int:
        return 0 if self.attempt is None else self.attempt.received


class Fetching(Struct):
    """The downloads of this host."""

    parts: FetchParts
    _jobs: dict[tuple[int, str], _Job] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _untold: bool = False
    _is_telling: bool = False

    def stop(self) -> None:
        """End all downloads behind the present chunk."""
        self._stop.set()

    async def fetch(self, file_id: str, message_id: str | None, out: str, wait_ms: int) -> Answer:
        """Start a download or join it, and return 200 when it is done, 202 while it goes on.

        Raise `ProtocolError` for an unknown file, a target that is refused, and a download that has failed.
        """
        found = await self.parts.files.find(file_id, message_id)
        if found is None:
            text = f"No message has announced a file {file_id}. `claudemesh file list` lists the files."
            raise ProtocolError("not_found", text)
        key = (found.number, out)
        if key not in self._jobs:
            place = (out, found.file.name, file_id, self.parts.home)
            await self._begin(key, found, partial(open_target, *place))
        return await self._answer(key, wait_ms)

    async def fetch_to(self, found: ReceivedFile, folder: Path, wait_ms: int) -> Answer:
        """Fetch the text of a message into a folder of the daemon, where its name is the message's id.

        The id of the file was chosen by its sender, and may be that of another message's text.
        """
        key = (found.number, str(folder))
        if key not in self._jobs:
            await self._begin(key, found, partial(Target, folder, found.inbox_id, found.inbox_id))
        return await self._answer(key, wait_ms)

    async def _answer(self, key: tuple[int, str], wait_ms: int) -> Answer:
        job = self._jobs[key]
        await asyncio.wait([job.done], timeout=wait_ms / 1000)
        if not job.done.done():
            file = job.found.file
            body = {"status": "fetching", "file_id": file.file_id, "received": job.received}
            return Answer(202, {**body, "size": file.size})
        self._jobs.pop(key, None)
        return job.done.result()

    async def _begin(self, key: tuple[int, str], found: ReceivedFile, opened: Callable[[], Target]) -> None:
        self._forget()
        if len(self._jobs) >= MAX_JOBS:
            raise ProtocolError("daemon_busy", f"{MAX_JOBS} files are fetched already. Wait for one of them.")
        target = await self.parts.threads.run(opened)
        if key in self._jobs:
            # Another request for the same target was faster.
            target.close()
            return
        job = _Job(found, asyncio.get_running_loop().create_future())
        self._jobs[key] = job
        self.parts.tasks.start(self._run(job, target), "fetch")

    def _forget(self) -> None:
        """Remove jobs whose outcome was not asked for."""
        if len(self._jobs) >= MAX_JOBS:
            self._jobs = {key: job for key, job in self._jobs.items() if not job.done.done()}

    async def _run(self, job: _Job, target: Target) -> None:
        """Bring a job to its end. Its outcome, also a failure, is kept for its caller."""
        try:
            answer = await self._fetch(job, target)
        except ProtocolError as error:
            log.warning("file_not_fetched", file_id=job.found.file.file_id, error=error.code)
            self.parts.count(error.code if error.code in LASTING else "other", 0)
            if error.code in LASTING:
                await self._note(job, error)
            with suppress(OSError):
                await self.parts.threads.run(target.drop_empty)
            _settle(job, error)
        except OSError as error:
            _settle(job, cannot_write(target.path, error))
        except asyncio.CancelledError:
            _settle(job, ProtocolError("daemon_busy", "The download was interrupted. Ask for it again."))
            raise
        except Exception as error:
            log.error("fetch_failed", file_id=job.found.file.file_id, error=repr(error), exc_info=error)
            _settle(job, ProtocolError("internal_error", "The download failed. The log has the reason."))
        else:
            job.done.set_result(answer)
        finally:
            # A thread that has not noticed the end yet still writes to the file.
            job.close_after(target)

    async def _fetch(self, job: _Job, target: Target) -> Answer:
        file, parts = job.found.file, self.parts
        if not target.is_named:
            await self._pull(job, target)
        await parts.threads.run(target.finish)
        await parts.files.fetched(job.found.number, parts.clock.wall_ms())
        parts.count("fetched", file.size)
        await parts.threads.run(target.tidy)
        self.tell()
        return Answer(
            200,
            {
                "status": "done",
                "file_id": file.file_id,
                "path": str(target.path),
                "name": target.path.name,
                "size": file.size,
                "sha256": file.sha256,
            },
        )

    async def _pull(self, job: _Job, target: Target) -> None:
        """Fetch until the whole is verified. Attempts without progress are limited."""
        file, parts = job.found.file, self.parts
        failures, best, is_judging = 0, -1, False
        while True:
            error: Exception
            try:
                opened = await parts.ask("blob_open", {"blob_id": file.blob_id}, blob_opened)
                ticket = Ticket(file.blob_id, opened.ticket, opened.size)
                check_size(file, ticket, opened.sha256)
                is_judging |= opened.sha256 != file.blob_sha256
                job.attempt = Download(
                    file, target.descriptor, parts.server(), self._stop.is_set, is_judging=is_judging
                )
                job.thread = parts.threads.transfers.submit(job.attempt.run, ticket)
                if await asyncio.wrap_future(job.thread):
                    return
                raise ProtocolError("daemon_busy", "The daemon stops. Ask for the file again later.")
            except ProtocolError as refused:
                if refused.code == "blob_not_found":
                    raise _gone(file) from refused
                if refused.code not in _AGAIN:
                    raise
                error = refused
            except (http.client.HTTPException, ConnectionError, TimeoutError) as lost:
                error = lost
                is_judging |= isinstance(lost, Unopened)
            failures = failures + 1 if job.received <= best else 0
            best = max(best, job.received)
            if failures >= _ATTEMPTS:
                raise _ended(error) from error
            await asyncio.sleep(min(parts.backoff.delay_s(failures + 1), 2.0))

    async def _note(self, job: _Job, error: ProtocolError) -> None:
        """Write the failure down, for `claudemesh doctor`."""
        with suppress(StorageError):
            await self.parts.files.failed(job.found.number, error.code)

    def tell(self) -> None:
        """Tell the broker which files this host has, in the background: after a download, and at link-up.

        A note whose answer is lost is sent again. Without it the broker only keeps the blob for longer.
        """
        self._untold = True
        if not self._is_telling:
            self._is_telling = True
            self.parts.tasks.start(self._tell(), "blob_fetched")

    async def _tell(self) -> None:
        try:
            while self._untold:
                self._untold = False
                await self._tell_all()
        except (ProtocolError, StorageError) as error:
            log.info("fetch_not_noted", error=str(error))
        finally:
            self._is_telling = False

    async def _tell_all(self) -> None:
        after = 0
        while found := await self.parts.files.untold(after, _TOLD_AT_ONCE):
            for one in found:
                after = one.number
                try:
                    await self.parts.ask("blob_fetched", {"blob_id": one.file.blob_id}, blob_noted)
                except ProtocolError as error:
                    if error.code == "broker_unavailable":
                        raise
                    log.info("fetch_not_noted", file_id=one.file.file_id, error=error.code)
                    if error.code != "blob_not_found":
                        continue
                await self.parts.files.told(one.number)


def _settle(job: _Job, error: ProtocolError) -> None:
    job.done.set_exception(error)
    # A caller that has gone does not read it.
    job.done.exception()


def _gone(file: Attachment) -> ProtocolError:
    return ProtocolError(
        "blob_not_found",
        f"The broker does not have the file {file.file_id} any more. It keeps a file for at most 30 days and "
        "for a day after its receivers have fetched it, or the sender has deleted it. Ask the sender to send "
        "it again.",
    )


def _ended(error: Exception) -> ProtocolError:
    if isinstance(error, ProtocolError):
        return error
    text = f"The connection to the broker was lost {_ATTEMPTS} times. Ask again: the download continues."
    return ProtocolError("broker_unavailable", text)
