"""Receipts at the host that sent: genuine ones advance a send, all others change nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.told import Advance, Teller
from claudemesh.daemon.outbox.types import NewRow, Now, Submission
from claudemesh.daemon.receipts.progress import counts_of, has_reached, sentence, state_of
from claudemesh.protocol.receipts import Receipt, ReceiptState
from tests.support.values import replace

BOB = Teller("id-of-bob", "bob", ("bb" * 32, "b0" * 32))
CAROL = Teller("id-of-carol", "carol", ("cc" * 32,))
SHOWN, ACKED = ReceiptState.SHOWN, ReceiptState.ACKED


@asynccontextmanager
async def outbox(folder: Path) -> AsyncGenerator[OutboxStore]:
    """An outbox with a dm to bob, a post to a topic, and a dm that asked for nothing."""
    store = await OutboxStore.open(folder / "outbox.db")
    rows = {
        "dm": NewRow("row-dm", b"{}", 1, 0, None, ACKED, "b0" * 32),
        "post": NewRow("row-post", b"{}", 1, 0, None, SHOWN, None),
        "plain": NewRow("row-plain", b"{}", 1, 0),
    }
    try:
        await store.turn([Submission(name, bytes(32), row) for name, row in rows.items()], [], Now(0, 0), 0)
        yield store
    finally:
        await store.close()


def row(status: str, **fields: object) -> dict[str, object]:
    """The row of a send, as far as its states follow from it."""
    return {"status": status, "local": False, "last_error": None, "receipt": None, **fields}


def shown(client_message_id: str, at: int = 7, session: str | None = None) -> Receipt:
    return Receipt(client_message_id=client_message_id, delivered_at=5, shown_at=at, shown_by=session)


async def test_only_the_recipient_tells_of_a_dm(tmp_path: Path) -> None:
    """Under any proven key. A forged one, one without a wish and one of no send change nothing."""
    async with outbox(tmp_path) as store:
        forged = [(CAROL, shown("dm")), (BOB, shown("plain")), (BOB, shown("unknown"))]
        assert await store.receipts.apply(forged) == []
        assert [(await store.receipts.of(row, 9)).recipients for row in ("row-dm", "row-plain")] == [[], []]
        [advance] = await store.receipts.apply([(BOB, shown("dm", session="api"))])
        assert advance == Advance("row-dm", BOB, shown("dm", session="api"))


async def test_a_receipt_that_comes_again_late_or_twice_advances_nothing(tmp_path: Path) -> None:
    """The furthest state stays, also when it came first."""
    async with outbox(tmp_path) as store:
        acked = replace(shown("dm"), acked_at=9)
        late = Receipt(client_message_id="dm", delivered_at=5)
        assert [one.receipt.state for one in await store.receipts.apply([(BOB, acked), (BOB, acked)])] == [
            ACKED
        ]
        assert await store.receipts.apply([(BOB, late), (BOB, shown("dm")), (BOB, acked)]) == []
        told = await store.receipts.of("row-dm", 9)
        assert told.furthest is ACKED
        assert [one.receipt for one in told.recipients] == [replace(acked, client_message_id="")]


async def test_a_topic_of_500_is_counted_and_each_member_answers_for_itself(tmp_path: Path) -> None:
    """A member has one entry, however often it tells."""
    async with outbox(tmp_path) as store:
        members = [Teller(f"id-{number:03}", f"m{number:03}", (f"{number:064x}",)) for number in range(500)]
        delivered = [(one, Receipt(client_message_id="post", delivered_at=1)) for one in members]
        assert len(await store.receipts.apply(delivered)) == 500
        assert len(await store.receipts.apply([(one, shown("post")) for one in members[:20]])) == 20
        told = await store.receipts.of("row-post", 100)
        assert [one.name for one in told.recipients] == [f"m{number:03}" for number in range(100)]
        assert counts_of(told) == {"delivered": 500, "notified": 20, "shown": 20, "acked": 0}
        sent = row("done", receipt="shown")
        assert (
            sentence(sent, "shown", told, None) == "delivered at 500, notified at 20, shown at 20 recipients"
        )


async def test_a_receipt_may_come_before_the_answer_of_the_broker(tmp_path: Path) -> None:
    """The state is then further than the row's. Without receipts it is the row's."""
    async with outbox(tmp_path) as store:
        nothing = await store.receipts.of("row-dm", 9)
        assert [state_of(row(status), nothing) for status in ("pending", "inflight", "done", "dead")] == [
            "queued",
            "queued",
            "accepted",
            "dead",
        ]
        await store.receipts.apply([(BOB, shown("dm"))])
        told = await store.receipts.of("row-dm", 9)
        assert state_of(row("inflight"), told) == "shown"
        assert sentence(row("inflight"), "shown", told, "offline") == "shown at bob"


async def test_a_local_send_is_delivered_without_any_receipt(tmp_path: Path) -> None:
    """Its message is on the disk of its recipient, which is this host."""
    async with outbox(tmp_path) as store:
        nothing = await store.receipts.of("row-dm", 9)
        local = row("done", local=True)
        assert state_of(local, nothing) == "delivered"
        assert sentence(local, "delivered", nothing, "offline") == "delivered on this host"


def test_a_send_that_has_ended_is_waited_for_no_longer() -> None:
    """A further state than the wanted one is enough."""
    assert (
        has_reached("dead", "shown") and has_reached("acked", "shown") and has_reached("accepted", "accepted")
    )
    assert not has_reached("queued", "accepted") and not has_reached("notified", "shown")
