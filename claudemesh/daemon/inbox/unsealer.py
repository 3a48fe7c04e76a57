"""Opening of stored sealed messages when a key has arrived.

A body cannot be opened while its recipient's key is not on this host, or while the directory knows another
sealing key of its sender.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.peer import Peer
from claudemesh.daemon.inbox.sealed import OpenedBody, Sealed, SealedMessages
from claudemesh.daemon.inbox.verify import Invalid, Verifier
from claudemesh.protocol.receipts import Receipt
from claudemesh.runtime.aside import Slices
from claudemesh.runtime.errors import StorageBroken, StorageError
from claudemesh.runtime.logs import get_logger

log = get_logger("inbox")

# Messages that are read and opened at a time. It bounds memory and the time on the event loop.
_PAGE: Final = 32
_RETRY_S: Final = 5.0
# Least time between two requests to the broker for keys that sealed messages may need.
_REFRESH_EVERY_S: Final = 60.0


TakeReceipts: TypeAlias = Callable[[Sequence[tuple[str, tuple[Receipt, ...]]]], Awaitable[None]]


MarkOpened: TypeAlias = Callable[[Sealed, OpenedBody], OpenedBody]


async def _take_none(receipts: Sequence[tuple[str, tuple[Receipt, ...]]]) -> None:
    """Drop receipts."""


def _as_it_is(message: Sealed, body: OpenedBody) -> OpenedBody:
    return body


class Unsealer:
    """Tries sealed messages again at the start and when a key has changed."""

    def __init__(
        self,
        store: SealedMessages,
        verifier: Verifier,
        directory: Directory,
        on_opened: Callable[[Sequence[dict[str, Any]]], None],
        refresh: Callable[[], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._verifier = verifier
        self._directory = directory
        self._on_opened = on_opened
        self._refresh = refresh
        self._monotonic = monotonic
        # For each sender, its sealing keys and the count of topic keys that its messages were tried with. At
        # most one entry per member.
        self._tried: dict[str, tuple[tuple[str, ...], int]] = {}
        self._topic_keys = 0
        self._wake = asyncio.Event()
        self._wake.set()
        self.take_receipts: TakeReceipts = _take_none
        self._mark: MarkOpened = _as_it_is
        self._refreshed_at = -_REFRESH_EVERY_S

    def on_bodies(self, mark: MarkOpened) -> None:
        """Let `mark` mark messages beyond the automatic turns of two sessions, before they are written."""
        self._mark = mark

    def directory_changed(self) -> None:
        """Try sealed messages again: the keys of their senders may have changed."""
        self._wake.set()

    def topic_key_came(self, topic: str) -> None:
        """Try every sealed message again: one of them may be a post of this topic."""
        self._topic_keys += 1
        self._wake.set()

    @property
    def topic_keys(self) -> int:
        """The count of topic keys that have come, for `stored`."""
        return self._topic_keys

    def stored(self, senders: Iterable[Peer], topic_keys: int) -> None:
        """Try the messages of these senders again if a key has come since, or refresh the directory.

        Senders and count are those of the moment before the messages were tried.
        """
        for sender in senders:
            now = self._directory.by_id(sender.member_id)
            if now is not None and (now.sealing_keys, self._topic_keys) != (sender.sealing_keys, topic_keys):
                # The key arrived between the attempt and the commit.
                self._tried.pop(sender.member_id, None)
                self._wake.set()
            elif self._monotonic() - self._refreshed_at >= _REFRESH_EVERY_S:
                # The directory may be out of date.
                self._refreshed_at = self._monotonic()
                self._refresh()

    async def run(self) -> None:
        """Open messages until cancelled. After a storage error it retries; it returns when the storage is
        broken."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.open_all()
            except StorageBroken:
                return
            except StorageError as error:
                log.warning("unseal_failed", error=str(error))
                self._wake.set()
                await asyncio.sleep(_RETRY_S)

    async def open_all(self) -> None:
        """Try the messages of every sender whose key has changed since the last attempt."""
        senders = await self._store.senders()
        self._tried = {sender: keys for sender, keys in self._tried.items() if sender in set(senders)}
        due: dict[str, Peer] = {}
        for member_id in senders:
            peer = self._directory.by_id(member_id)
            if peer is None or self._tried.get(member_id) == (peer.sealing_keys, self._topic_keys):
                continue
            # Noted before the attempt: a key that comes meanwhile makes the note out of date.
            self._tried[member_id] = (peer.sealing_keys, self._topic_keys)
            due[member_id] = peer
        try:
            await self._open_from(due)
        except BaseException:
            for member_id in due:
                self._tried.pop(member_id, None)
            raise

    async def _open_from(self, peers: Mapping[str, Peer]) -> None:
        """Try the messages of these senders, in the order in which the broker accepted them."""
        ids = await self._store.waiting(peers) if peers else []
        for start in range(0, len(ids), _PAGE):
            slices = Slices()
            opened: list[tuple[str, OpenedBody]] = []
            unreadable: list[tuple[str, str]] = []
            for row in await self._store.of(ids[start : start + _PAGE]):
                await slices.rest()
                peer = peers[row.sender_member_id]
                found = await self._verifier.reopen(row.envelope, peer)
                if isinstance(found, OpenedBody) and found.receipting.receipts:
                    await self._take(peer, row.id, found)
                elif isinstance(found, OpenedBody):
                    opened.append((row.id, self._mark(row, found)))
                elif isinstance(found, Invalid):
                    unreadable.append((row.id, found.reason))
                    log.warning("message_unreadable", id=row.id, reason=found.reason)
            if not (opened or unreadable):
                continue
            items = await self._store.store(opened, unreadable)
            log.info("messages_unsealed", count=len(items), unreadable=len(unreadable))
            self._on_opened(items)

    async def _take(self, peer: Peer, row_id: str, found: OpenedBody) -> None:
        """Pass on receipts that could not be opened when they came. They are no message."""
        await self.take_receipts([(peer.member_id, found.receipting.receipts)])
        await self._store.drop([row_id])
