"""Rebuilding of a damaged inbox from the broker's history (docs/spec/daemon.md, Inbox).

Crash story: the note `inbox.db.rebuild` is on the disk before the damaged file is moved aside, and it is
removed when the last page is stored. A kill in between, or a link that breaks, begins again with the first
page; a message that is stored is not stored twice.

The broker does not know which messages were read. So those of the history are stored as acknowledged: no
hook, no stream and no session gets them, and their positions are below those of the new inbox. A message that
the broker still delivers takes the place of its row, as a new one; so does one that is opened later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from claudemesh.daemon.inbox.history import History, HistoryWish, OwnMessage
from claudemesh.daemon.inbox.store import InboxRow
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.sealing import NO_RECEIPTS
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.files import remove
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.services import TaskOwner

log = get_logger("inbox")

REBUILDING = "inbox_rebuilding"
_PAGE = 500
_TEXT = (
    "The inbox was damaged. A new one was begun, and it is filled with the messages that the broker keeps as "
    "soon as the link is open."
)
Insert = Callable[[Sequence[InboxRow]], Awaitable[Sequence[int | None]]]


class InboxRebuild:
    """Fills a new inbox with the messages of the history, when the note says so."""

    def __init__(
        self,
        note: Path,
        history: History,
        insert: Insert,
        clock: Clock,
        tasks: TaskOwner,
        conditions: Conditions,
    ) -> None:
        self._note = note
        self._history = history
        self._insert = insert
        self._clock = clock
        self._tasks = tasks
        self._conditions = conditions
        self._is_running = False
        self._show()

    def link_up(self) -> None:
        """Begin, if the note is there."""
        if self._note.exists() and not self._is_running:
            self._is_running = True
            self._tasks.start(self._run(), "inbox_rebuild")

    async def _run(self) -> None:
        try:
            count = await self._fill()
            remove(self._note)
            log.info("inbox_rebuilt", messages=count)
        except (ProtocolError, StorageError, OSError) as error:
            # The next link begins again.
            log.warning("inbox_rebuild_stopped", error=str(error))
        finally:
            self._is_running = False
            self._show()

    async def _fill(self) -> int:
        after: int | None = 0
        count = 0
        while after is not None:
            page = await self._history.page(HistoryWish(_PAGE, after=after), self._clock.wall_ms())
            stored = await self._insert([_recovered(one) for one in page.messages if one.was_received])
            count += sum(seq is not None for seq in stored)
            failpoint("rebuild.after_page")
            after = page.next
        return count

    def _show(self) -> None:
        self._conditions.set(REBUILDING, _TEXT if self._note.exists() else None)


def _recovered(message: OwnMessage) -> InboxRow:
    return msgspec.structs.replace(message.row, recovered=True, receipting=NO_RECEIPTS)
