"""Receipts at the host that received: each state that was asked for is told once, in few messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.receipts.telling import ReceiptTelling
from claudemesh.protocol.receipts import MAX_RECEIPTS, ReceiptState
from claudemesh.protocol.sealing import Receipting
from tests.support.clock import ManualClock
from tests.support.daemon import NOW, Person, directory_of, new_ulid, person
from tests.support.inbox import inbox_row

ALICE, BOB, CAROL = person("alice"), person("bob"), person("carol")


class Host:
    """Bob's inbox, and the messages of receipts that leave it."""

    def __init__(self, folder: Path, inbox: InboxStore) -> None:
        self.inbox = inbox
        self.sent: list[SendRequest] = []
        self.answer = 202
        self.told = 0
        self.inline_bytes = 1 << 20
        self.names_sessions = True
        self.telling = ReceiptTelling(
            inbox.receipts,
            directory_of(folder, ALICE, BOB),
            self._submit,
            new_ulid,
            lambda: self.inline_bytes,
            lambda: self.names_sessions,
            self._count,
        )

    async def receive(self, wish: ReceiptState | None, number: int = 1, sender: Person = ALICE) -> list[str]:
        ids = [new_ulid() for _ in range(number)]
        rows = [
            inbox_row(
                id=one,
                client_message_id=one,
                sender_member_id=sender.member_id,
                broker_message_id=one,
                sender_pubkey=sender.identity.ed25519_pubkey,
                sender_name=sender.name,
                receipting=Receipting(wish),
            )
            for one in ids
        ]
        await self.inbox.insert(rows)
        return ids

    async def tells(self) -> list[list[ReceiptState | None]]:
        """The states that are told now, by message of receipts."""
        first = len(self.sent)
        await self.telling.tell_all()
        return [[one.state for one in request.receipts] for request in self.sent[first:]]

    async def _submit(self, request: SendRequest) -> Answer:
        if self.answer < 400:
            self.sent.append(request)
        return Answer(self.answer, {"error": "x"})

    def _count(self, number: int) -> None:
        self.told += number


@asynccontextmanager
async def host(folder: Path) -> AsyncGenerator[Host]:
    inbox = await InboxStore.open(folder / "inbox.db", ManualClock())
    try:
        yield Host(folder, inbox)
    finally:
        await inbox.close()


async def test_each_state_is_told_once_and_no_further_than_asked(tmp_path: Path) -> None:
    """A message that comes to a further state in between is told that one only."""
    async with host(tmp_path) as bob:
        await bob.receive(None)
        [seen] = await bob.receive(ReceiptState.SHOWN)
        [acked] = await bob.receive(ReceiptState.ACKED)
        assert await bob.tells() == [[ReceiptState.DELIVERED] * 2]
        assert await bob.tells() == []
        await bob.inbox.mark([seen, acked], "shown", NOW + 1, "api")
        await bob.inbox.mark([seen, acked], "acked", NOW + 2, "web")
        assert await bob.tells() == [[ReceiptState.SHOWN, ReceiptState.ACKED]]
        assert [one.session for one in bob.sent[-1].receipts] == ["api", "web"]
        await bob.inbox.mark([seen, acked], "acked", NOW + 3, "api")
        assert await bob.tells() == []
        assert bob.told == 4


async def test_the_first_time_and_the_first_session_count(tmp_path: Path) -> None:
    """A second look tells nothing new."""
    async with host(tmp_path) as bob:
        [one] = await bob.receive(ReceiptState.ACKED)
        await bob.inbox.mark([one], "notified", NOW + 1, "api")
        await bob.inbox.mark([one], "shown", NOW + 2, "web")
        await bob.inbox.mark([one], "shown", NOW + 9, "ops")
        await bob.inbox.mark([one], "notified", NOW + 9, "ops")
        assert await bob.tells() == [[ReceiptState.SHOWN]]
        [told] = bob.sent[-1].receipts
        assert (told.notified_at, told.shown_at, told.session) == (NOW + 1, NOW + 2, "web")
        assert (told.notified_by, told.shown_by) == ("api", "web")


async def test_ten_thousand_receipts_are_few_messages(tmp_path: Path) -> None:
    """Each within the broker's limit of a body; none is told twice, and none is lost."""
    async with host(tmp_path) as bob:
        ids = await bob.receive(ReceiptState.DELIVERED, 10_000)
        found = [len(states) for _ in range(5) for states in await bob.tells()]
        assert found == [MAX_RECEIPTS] * 5
        assert sorted(one.client_message_id for sent in bob.sent for one in sent.receipts) == sorted(ids)
        bob.inline_bytes = 1024
        await bob.receive(ReceiptState.DELIVERED, 3)
        assert [len(states) for _ in range(4) for states in await bob.tells()] == [1, 1, 1]


async def test_a_full_outbox_puts_receipts_off_and_loses_none(tmp_path: Path) -> None:
    """They are told when there is room."""
    async with host(tmp_path) as bob:
        await bob.receive(ReceiptState.DELIVERED)
        bob.answer = 507
        assert await bob.telling.tell_all() is False
        bob.answer = 202
        assert await bob.tells() == [[ReceiptState.DELIVERED]]


async def test_a_sender_that_is_gone_is_told_nothing(tmp_path: Path) -> None:
    """Its receipts are no debt for ever."""
    async with host(tmp_path) as bob:
        await bob.receive(ReceiptState.DELIVERED, sender=CAROL)
        await bob.receive(ReceiptState.DELIVERED)
        bob.answer = 404
        assert await bob.tells() == []
        bob.answer = 202
        assert await bob.tells() == []
        assert bob.told == 0


async def test_names_of_sessions_stay_here_when_they_are_not_published(tmp_path: Path) -> None:
    """`[sessions] publish = false`."""
    async with host(tmp_path) as bob:
        bob.names_sessions = False
        [one] = await bob.receive(ReceiptState.SHOWN)
        await bob.inbox.mark([one], "notified", NOW, "secret-project")
        await bob.inbox.mark([one], "shown", NOW, "secret-project")
        assert await bob.tells() == [[ReceiptState.SHOWN]]
        assert [(one.session, one.notified_by) for one in bob.sent[-1].receipts] == [(None, None)]


async def test_a_message_whose_receipt_is_due_is_not_removed_for_room(tmp_path: Path) -> None:
    """Once told, it is."""
    async with host(tmp_path) as bob:
        [one] = await bob.receive(ReceiptState.ACKED)
        await bob.inbox.mark([one], "acked", NOW)
        assert await bob.inbox.remove_acknowledged(10) == 0
        await bob.tells()
        assert await bob.inbox.remove_acknowledged(10) == 1
