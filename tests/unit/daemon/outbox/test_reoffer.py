"""The list of forgotten sends in outbox.db, and the work on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.outbox.done import WaitingOffers
from claudemesh.daemon.outbox.lookback import Comparison
from claudemesh.daemon.outbox.reoffer import Reoffer
from claudemesh.daemon.outbox.states import Status
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.types import NewRow, Now, Settlement, Submission
from claudemesh.protocol.frames import SendResult
from claudemesh.runtime.backoff import Backoff
from tests.support.daemon import NOW, new_ulid

LIVED = 5_000_000
AT = Now(NOW, LIVED, None)
PAYLOAD = b'{"destination_kind":"topic","destination_ref":"all","priority":"next","reply_to_id":null}'
NOT_FOUND = {"error": "destination_not_found", "message": "nobody"}

Answer = Callable[[str], tuple[int, Mapping[str, Any]]]


def accepted(row_id: str) -> tuple[int, Mapping[str, Any]]:
    """The broker takes it, under new ids."""
    return 201, {"broker_message_id": new_ulid(), "history_id": 1000}


class Broker:
    """A link to a broker that answers each offer as it is told; it may be down."""

    def __init__(self) -> None:
        self.offered: list[str] = []
        self.envelopes: list[bytes] = []
        self.answer: Answer = accepted
        self.up = True
        self.reoffer: Reoffer

    @property
    def connected(self) -> bool:
        return self.up

    async def send_envelope(self, request_id: str, envelope: bytes) -> None:
        if not self.up:
            raise ConnectionError("down")
        row_id = request_id.removeprefix("again-")
        self.offered.append(row_id)
        self.envelopes.append(envelope)
        status, fields = self.answer(row_id)
        loop = asyncio.get_running_loop()
        loop.call_soon(self.reoffer.on_result, SendResult(request_id, status, dict(fields)))


class Bench:
    """An outbox with done sends, and the re-offer on it."""

    def __init__(self, store: OutboxStore) -> None:
        self.store = store
        self.broker = Broker()
        self.waiting: list[WaitingOffers] = []
        backoff = Backoff(initial_s=0.001, cap_s=0.001)
        self._round = asyncio.Event()
        self.sealed: bytes | None = None
        self.reoffer = Reoffer(
            store.done, self.broker, backoff, lambda: False, self._over, lambda payload: self.sealed
        )
        self.broker.reoffer = self.reoffer

    def _over(self, waiting: WaitingOffers) -> None:
        self.waiting.append(waiting)
        self._round.set()

    async def one_round(self) -> None:
        """Return when the list was gone through once."""
        await self._round.wait()

    async def add(self, count: int, first: int = 1) -> list[str]:
        """Make done sends that the broker accepted as `first` and on; returns their row ids."""
        ids = [f"row-{number:04}" for number in range(first, first + count)]
        rows = [NewRow(row_id, PAYLOAD, 1, NOW) for row_id in ids]
        await self.store.turn([Submission(row.id, bytes(32), row) for row in rows], [], AT, 0)
        taken = (await self.store.turn([], [], AT, count)).taken
        settled = [
            Settlement(row, Status.DONE, broker_message_id=new_ulid(), history_id=first + place)
            for place, row in enumerate(taken)
        ]
        await self.store.turn([], settled, AT, 0)
        return ids

    async def forget(self) -> None:
        """Every done send was forgotten."""
        await self.store.done.note_restore(1)
        await self.store.done.note_verdict(Comparison(tuple(await self.store.done.before(None, 1000))))


@asynccontextmanager
async def bench(folder: Path) -> AsyncGenerator[Bench]:
    store = await OutboxStore.open(folder / "outbox.db")
    try:
        yield Bench(store)
    finally:
        await store.close()


async def test_local_sends_are_neither_asked_about_nor_offered(tmp_path: Path) -> None:
    """The broker has never known them."""
    async with bench(tmp_path) as made:
        await made.add(2)
        local = [NewRow(f"local-{number}", PAYLOAD, 1, NOW, local=new_ulid()) for number in range(3)]
        turn = await made.store.turn([Submission(row.id, bytes(32), row) for row in local], [], AT, 9)
        assert [one.status for one in turn.answers] == [200] * 3 and not turn.taken
        assert [one.id for one in await made.store.done.before(None, 9)] == ["row-0002", "row-0001"]
        assert [one.id for one in await made.store.done.at(range(9))] == ["row-0002", "row-0001"]
        assert await made.store.counts() == {"pending": 0, "inflight": 0, "dead": 0}


async def test_forgotten_sends_are_offered_oldest_first_and_once(tmp_path: Path) -> None:
    """Their rows take the new ids; nothing is left."""
    async with bench(tmp_path) as b:
        ids = await b.add(100)
        await b.forget()
        await b.forget()
        assert await b.reoffer.run() == 100
        assert b.broker.offered == ids
        row = await b.store.raw(ids[0])
        assert row is not None
        assert (row["status"], row["history_id"], row["last_error"]) == ("done", 1000, None)
        assert b.waiting[-1].count == 0
        assert await b.reoffer.run() == 0


@pytest.mark.parametrize("error", ["key_epoch_expired", "seal_required"])
async def test_a_send_whose_seal_is_refused_is_sealed_again_and_offered(tmp_path: Path, error: str) -> None:
    """On the disk before it leaves; without the key it waits until that comes."""
    async with bench(tmp_path) as b:
        [only] = await b.add(1)
        await b.forget()

        def answer(row_id: str) -> tuple[int, Mapping[str, Any]]:
            if b.broker.envelopes[-1] == PAYLOAD:
                return 422, {"error": error, "message": "seal it"}
            return accepted(row_id)

        b.broker.answer = answer
        run = asyncio.get_running_loop().create_task(b.reoffer.run())
        await b.one_round()
        assert b.waiting[0] == WaitingOffers(1, 1, f"{error}: It waits for the present key of its topic.")
        b.sealed = PAYLOAD.replace(b"next", b"now")
        b.reoffer.try_refused_now()
        assert await run == 1
        assert b.broker.envelopes == [PAYLOAD, PAYLOAD, b.sealed]
        row = await b.store.raw(only)
        assert row is not None
        assert (row["payload"], row["status"], row["last_error"]) == (b.sealed, "done", None)


async def test_what_is_refused_stays_on_the_list_until_its_recipient_is_back(tmp_path: Path) -> None:
    """It is shown with the reason, its neighbours are not held up, and the next round takes it."""
    async with bench(tmp_path) as b:
        ids = await b.add(3)
        await b.forget()
        b.broker.answer = lambda row_id: (404, NOT_FOUND) if row_id == ids[0] else accepted(row_id)
        run = asyncio.get_running_loop().create_task(b.reoffer.run())
        await b.one_round()
        assert b.waiting[0] == WaitingOffers(1, 1, "destination_not_found: nobody")
        row = await b.store.raw(ids[0])
        assert row is not None
        assert row["last_error"] == "reoffer_refused: destination_not_found: nobody"
        # Housekeeping leaves its payload.
        assert await b.store.drop_payloads(LIVED + 10**9, 100) == 2
        b.broker.answer = accepted
        b.reoffer.try_refused_now()
        assert await run == 3
        assert b.broker.offered == [*ids, ids[0]]


@pytest.mark.parametrize(
    "answer", [(429, {"error": "rate_limited", "retry_after_ms": 1}), (503, {"error": "busy"})]
)
async def test_what_the_broker_cannot_take_now_is_asked_again(
    tmp_path: Path, answer: tuple[int, Mapping[str, Any]]
) -> None:
    """It is no refusal."""
    async with bench(tmp_path) as b:
        ids = await b.add(2)
        await b.forget()
        answers = iter([answer, answer, answer])
        b.broker.answer = lambda row_id: next(answers, None) or accepted(row_id)
        assert await b.reoffer.run() == 2
        assert b.waiting == [WaitingOffers(0, 0, None)]
        assert set(b.broker.offered) == set(ids)


async def test_a_link_that_goes_leaves_the_list(tmp_path: Path) -> None:
    """So does the process: the list is in the file."""
    async with bench(tmp_path) as b:
        ids = await b.add(3)
        await b.forget()
        b.broker.up = False
        with pytest.raises(ConnectionError):
            await b.reoffer.run()
    async with bench(tmp_path) as b:
        restore = await b.store.done.restore()
        assert restore is not None
        assert (restore.is_scanned, restore.forgotten, restore.lost) == (False, 3, 0)
        assert await b.reoffer.run() == 3
        assert b.broker.offered == ids


async def test_a_send_without_its_payload_is_counted_as_lost_once(tmp_path: Path) -> None:
    """It is named in the outbox, and no later answer of the broker's counts it again."""
    async with bench(tmp_path) as b:
        ids = await b.add(2)
        await b.store.drop_payloads(LIVED + 10**9, 100)
        await b.add(1, first=3)
        await b.forget()
        await b.forget()
        restore = await b.store.done.restore()
        assert restore is not None
        assert (restore.forgotten, restore.lost) == (1, 2)
        row = await b.store.raw(ids[0])
        assert row is not None
        assert row["last_error"].startswith("forgotten_by_broker")
        assert await b.reoffer.run() == 1


async def test_an_operator_gives_offers_up_by_pruning(tmp_path: Path) -> None:
    """Without payloads there is nothing to offer, and nothing waits."""
    async with bench(tmp_path) as b:
        await b.add(3)
        await b.forget()
        await b.store.prune(100)
        assert await b.reoffer.run() == 0
        assert b.broker.offered == []
        # The broker is not asked about them again.
        assert await b.store.done.at([0]) == []
