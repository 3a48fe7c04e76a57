"""Each link-up, on a real outbox, against a broker that remembers as much as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest

from claudemesh.daemon.link.handshake import Agreed
from claudemesh.daemon.outbox.reoffer import Reoffer
from claudemesh.daemon.outbox.states import Status
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.types import NewRow, Now, Settlement, Submission
from claudemesh.daemon.restore.broker_notes import BrokerNotes
from claudemesh.daemon.restore.reconcile import Reconciler
from claudemesh.daemon.restore.state import RestoreState
from claudemesh.daemon.topics.own import OwnTopics
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.features import Features
from claudemesh.protocol.frames import HelloAck, SendResult
from claudemesh.protocol.ids import UlidFactory
from claudemesh.protocol.replies import Read
from claudemesh.runtime.backoff import Backoff
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.lived import LivedClock
from claudemesh.runtime.sidefiles import SideFiles
from tests.support.clock import ManualClock
from tests.support.daemon import NOW

T = TypeVar("T")

DAY_MS = 86_400_000
LIVED = 5_000_000
AT = Now(NOW, LIVED, None)
PAYLOAD = b'{"destination_kind":"topic","destination_ref":"all","priority":"next","reply_to_id":null}'
FEATURES = Features("retention_scoped", 7, None, 262144, 1 << 20, "prefer_newest", None, False)


class Broker:
    """A link to a broker with a memory, which a restore takes away."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, int]] = {}
        self.offered: list[str] = []
        self.asked: list[list[str]] = []
        self.failing = 0
        self.reconciler: Reconciler
        self.store_epoch = "first"
        self.now_ms = NOW
        self._mint = UlidFactory(lambda: self.now_ms, lambda count: bytes(count))
        self._changed = asyncio.Event()

    @property
    def connected(self) -> bool:
        return True

    def accept(self, client_message_id: str) -> tuple[str, int]:
        """Take a send; returns its ids."""
        ids = (self._mint.new(), len(self.known) + 1)
        self.known[client_message_id] = ids
        return ids

    async def call(self, method: str, params: Mapping[str, Any], read: Read[T]) -> T:
        return read(self.answer(method, params))

    def answer(self, method: str, params: Mapping[str, Any]) -> Any:
        if method == "topic_list":
            return {"items": []}
        if self.failing:
            self.failing -= 1
            raise ProtocolError("internal_error", "not now")
        ids = params["client_message_ids"]
        self.asked.append(ids)
        self._changed.set()
        return {
            "items": {
                one: {
                    "known": one in self.known,
                    "broker_message_id": self.known.get(one, (None, None))[0],
                    "history_id": self.known.get(one, (None, None))[1],
                }
                for one in ids
            }
        }

    async def send_envelope(self, request_id: str, envelope: bytes) -> None:
        row_id = request_id.removeprefix("again-")
        self.offered.append(row_id)
        broker_message_id, history_id = self.known.get(row_id) or self.accept(row_id)
        fields = {"broker_message_id": broker_message_id, "history_id": history_id}
        asyncio.get_running_loop().call_soon(self.reconciler.on_result, SendResult(request_id, 201, fields))
        self._changed.set()

    async def wait(self, *, offered: int = 0, asked: int = 0) -> None:
        """Return once so much was offered and asked."""
        while len(self.offered) < offered or len(self.asked) < asked:
            self._changed.clear()
            await self._changed.wait()

    def opened(self) -> Agreed:
        """A link that is up."""
        return Agreed(
            HelloAck("member", "connection", {}, self.now_ms, self.store_epoch),
            self.now_ms,
            FEATURES,
            "1",
            {},
        )


class Host:
    """One daemon's part in it."""

    def __init__(self, folder: Path, store: OutboxStore, broker: Broker, lived: LivedClock) -> None:
        self.store = store
        self.broker = broker
        clock = ManualClock()
        self.conditions = Conditions(clock)
        self.restore = RestoreState(lived.now_ms, self.conditions)
        write = SideFiles(folder, self.conditions).write
        backoff = Backoff(initial_s=0.001, cap_s=0.001)
        self.reconciler = broker.reconciler = Reconciler(
            store.done,
            broker,
            Reoffer(
                store.done, broker, backoff, lambda: False, self.restore.show_waiting, lambda payload: None
            ),
            OwnTopics(folder / "topic_subscriptions.json", clock, write),
            BrokerNotes(folder / "broker_features.json", write),
            self.restore,
            backoff,
            lambda name, error: pytest.fail(f"{name}: {error!r}"),
        )

    async def send(self, count: int, first: int = 1) -> None:
        """Make sends that the broker has accepted."""
        ids = [f"send-{number:04}" for number in range(first, first + count)]
        rows = [NewRow(row_id, PAYLOAD, 1, NOW) for row_id in ids]
        await self.store.turn([Submission(row.id, bytes(32), row) for row in rows], [], AT, 0)
        taken = (await self.store.turn([], [], AT, count)).taken
        settled = []
        for row in taken:
            broker_message_id, history_id = self.broker.accept(row.client_message_id)
            settled.append(
                Settlement(row, Status.DONE, broker_message_id=broker_message_id, history_id=history_id)
            )
        await self.store.turn([], settled, AT, 0)

    async def link_up(self) -> None:
        """Connect, and return when the first question was answered."""
        asked = len(self.broker.asked)
        self.reconciler.link_up(self.broker.opened())
        await self.broker.wait(asked=asked + 1)

    async def settled(self) -> None:
        """Return when all that was begun on this link is done."""
        await self.reconciler._tasks.join()

    async def mended(self) -> None:
        """Return when nothing waits any more."""
        while (await self.store.done.waiting()).count:
            pass

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when a condition holds."""
        while not condition():  # noqa: ASYNC110 - conditions have no event
            await asyncio.sleep(0.001)


@asynccontextmanager
async def host(folder: Path, broker: Broker) -> AsyncGenerator[Host]:
    store = await OutboxStore.open(folder / "outbox.db")
    made = Host(folder, store, broker, LivedClock(ManualClock()))
    await made.reconciler.load()
    try:
        yield made
    finally:
        await made.reconciler.close()
        await store.close()


def forget(broker: Broker, after: int) -> None:
    """Restore the broker from a copy that has only the first sends."""
    broker.known = dict(list(broker.known.items())[:after])


async def test_a_broker_that_knows_the_newest_is_asked_once(tmp_path: Path) -> None:
    """One call with at most 64 ids; nothing is offered."""
    broker = Broker()
    async with host(tmp_path, broker) as alice:
        await alice.send(200)
        for _ in range(3):
            await alice.link_up()
            await alice.settled()
            alice.reconciler.link_down()
        assert len(broker.asked) == 3
        assert all(len(ids) <= 64 for ids in broker.asked)
        assert broker.asked[0][0] == "send-0200"
        assert broker.offered == []


async def test_no_send_may_leave_before_the_broker_was_asked(tmp_path: Path) -> None:
    """On each link again; a question that fails leaves them waiting."""
    broker = Broker()
    async with host(tmp_path, broker) as alice:
        await alice.send(3)
        told: list[bool] = []
        alice.restore.on_asked(lambda: told.append(alice.restore.is_asked))
        broker.failing = 1
        for links in (1, 2):
            assert not alice.restore.is_asked
            alice.reconciler.link_up(broker.opened())
            assert not alice.restore.is_asked
            await alice.until(lambda links=links: len(told) == links)
            assert broker.asked[-1] == ["send-0003", "send-0002", "send-0001"]
            alice.reconciler.link_down()
        assert told == [True, True]


async def test_features_are_noted_at_once_and_the_epoch_when_it_is_verified(tmp_path: Path) -> None:
    """A link that is lost at once leaves the negotiated sizes behind, and another link asks again."""
    broker = Broker()
    async with host(tmp_path, broker) as made:
        made.reconciler.link_up(broker.opened())
        made.reconciler.link_down()
        noted = orjson.loads((tmp_path / "broker_features.json").read_bytes())
        assert (noted["inline_bytes"], noted["epoch"]) == (FEATURES.inline_bytes, None)


async def test_only_what_was_forgotten_is_offered_oldest_first(tmp_path: Path) -> None:
    """However many sends there are; under the epoch that the broker always had."""
    broker = Broker()
    async with host(tmp_path, broker) as alice:
        await alice.send(300)
        forget(broker, 270)
        await alice.link_up()
        await broker.wait(offered=30)
        await alice.mended()
        assert broker.offered == [f"send-{number:04}" for number in range(271, 301)]
        asked = len(broker.asked)
        alice.reconciler.link_down()
        await alice.link_up()
        await alice.settled()
        assert len(broker.asked) == asked + 1


async def test_another_epoch_lets_every_send_be_asked_about(tmp_path: Path) -> None:
    """Once: what is found to be there is not offered, and the new epoch is noted."""
    broker = Broker()
    async with host(tmp_path, broker) as alice:
        await alice.send(300)
        await alice.link_up()
        await alice.until(lambda: alice.reconciler.store_epoch == "first")
        alice.reconciler.link_down()
        broker.store_epoch = "second"
        broker.known.pop("send-0150")
        await alice.link_up()
        await broker.wait(offered=1)
        await alice.mended()
        assert broker.offered == ["send-0150"]
    async with host(tmp_path, broker) as alice:
        asked = len(broker.asked)
        await alice.link_up()
        await alice.settled()
        assert len(broker.asked) == asked + 1


async def test_ids_that_the_broker_has_swept_in_good_order_are_not_asked(tmp_path: Path) -> None:
    """A host that was off for a fortnight has payloads that are younger, in lived time, than the window."""
    broker = Broker()
    async with host(tmp_path, broker) as alice:
        await alice.send(5)
        broker.now_ms = NOW + 14 * DAY_MS
        broker.known.clear()
        await alice.send(2, first=6)
        await alice.link_up()
        await alice.settled()
        assert broker.asked == [["send-0007", "send-0006"]]
        assert broker.offered == []


async def test_sends_without_payloads_are_lost_loudly(tmp_path: Path) -> None:
    """A daemon that was away for long says how many; it does not say it of the next link-up too."""
    broker = Broker()
    async with host(tmp_path, broker) as alice:
        await alice.send(4)
        await alice.store.drop_payloads(LIVED + DAY_MS, 100)
        forget(broker, 1)
        await alice.link_up()
        await alice.until(lambda: alice.conditions.holds("sends_lost_by_broker"))
        [entry] = alice.conditions.items()
        assert " 3 sends " in entry["message"]
        await alice.settled()
        assert broker.offered == []
        asked = len(broker.asked)
        alice.reconciler.link_down()
        await alice.link_up()
        assert broker.asked[asked] == ["send-0001"]


async def test_a_full_disk_does_not_end_the_mending(tmp_path: Path) -> None:
    """It is tried again until it succeeds, and shown meanwhile."""
    broker = Broker()
    async with host(tmp_path, broker) as alice:
        await alice.send(600)
        forget(broker, 0)
        await alice.store._db.run(lambda raw: raw.execute("PRAGMA max_page_count = 1"))
        await alice.link_up()
        await alice.until(lambda: alice.conditions.holds("restore_check_failed"))
        assert alice.restore.may_come_back("destination_not_found")
        await alice.store._db.run(lambda raw: raw.execute("PRAGMA max_page_count = 100000"))
        await broker.wait(offered=600)
        await alice.mended()
        assert not alice.conditions.holds("restore_check_failed")


async def test_a_broker_that_fails_to_answer_is_asked_again(tmp_path: Path) -> None:
    """A failure is no verdict."""
    broker = Broker()
    broker.failing = 3
    async with host(tmp_path, broker) as alice:
        await alice.send(3)
        forget(broker, 1)
        await alice.link_up()
        await broker.wait(offered=2)
        assert broker.offered == ["send-0002", "send-0003"]


async def test_refusals_may_pass_only_while_a_restore_is_mended(tmp_path: Path) -> None:
    """Until the question is answered, and for a day after a restore; other refusals are final at any time."""
    broker = Broker()
    async with host(tmp_path, broker) as alice:
        await alice.send(1)
        assert not alice.restore.may_come_back("destination_not_found")
        alice.reconciler.link_up(broker.opened())
        assert alice.restore.may_come_back("destination_not_found")
        assert not alice.restore.may_come_back("payload_too_large")
        await broker.wait(asked=1)
        await alice.until(lambda: not alice.restore.may_come_back("destination_not_found"))
        alice.reconciler.link_down()
        forget(broker, 0)
        await alice.link_up()
        await broker.wait(offered=1)
        assert alice.restore.may_come_back("topic_not_found")
