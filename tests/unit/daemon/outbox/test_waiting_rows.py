"""Rows that wait for the key of their topic: sealed in order when it comes, and never sent without it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from claudemesh.daemon.outbox.body_limit import BodyLimit
from claudemesh.daemon.outbox.destinations import Destination
from claudemesh.daemon.outbox.request import parse_send
from claudemesh.daemon.outbox.sealer import Sealer
from claudemesh.daemon.outbox.states import Status
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.types import NewRow, Now, Settlement, Submission
from claudemesh.daemon.outbox.waiting_rows import WaitingRows
from claudemesh.protocol.envelope import Envelope
from claudemesh.runtime.services import TaskOwner
from tests.support.daemon import MESH_ID, NOW, KeyOfEachTopic, keyring_of, person

ALICE = person("alice")
AT = Now(NOW, 1_000)
NEWS = Destination("topic", "news")


class Bench:
    """Waiting rows on a real store; the keys are in hand."""

    def __init__(self, store: OutboxStore) -> None:
        self.store = store
        self.keys = KeyOfEachTopic(is_missing=True)
        self.woken = asyncio.Event()
        self.ended: list[Settlement] = []
        self.may_come_back = False
        self.rows = WaitingRows(
            store,
            self.keys,
            lambda payload: self.sealer.seal_again(payload),
            self.woken.set,
            lambda error: self.may_come_back,
            self.ended.append,
        )
        self.sealer = Sealer(keyring_of(ALICE.identity), MESH_ID, os.urandom, BodyLimit(), self.rows)

    async def post(self, name: str) -> NewRow:
        """Accept a post."""
        request = parse_send({"to": "#news", "message": f"text of {name}"})
        envelope = self.sealer.seal(request, NEWS, (), name)
        waits = "news" if envelope.seal.alg == "none" else None
        row = NewRow(name, envelope.encode(), 1, NOW, waits)
        await self.store.turn([Submission(name, bytes(32), row)], [], AT, 0)
        self.sealer.written(row)
        return row

    async def taken(self) -> dict[str, Envelope]:
        """Take the rows that may leave, in their order."""
        turn = await self.store.turn([], [], AT, 100)
        return {row.client_message_id: Envelope.decode(row.payload) for row in turn.taken}

    async def key_comes(self) -> None:
        """Get the key, and return when rows were sealed."""
        self.keys.is_missing = False
        self.woken.clear()
        self.rows.key_came("news")
        await self.woken.wait()

    def text(self, envelope: Envelope) -> str:
        """Open a post as another member would."""
        return self.sealer.open_own(envelope, NEWS).message


@asynccontextmanager
async def bench_on(folder: Path) -> AsyncGenerator[Bench]:
    store = await OutboxStore.open(folder / "outbox.db")
    bench, tasks = Bench(store), TaskOwner()
    tasks.start(bench.rows.run(), "waiting_rows")
    try:
        yield bench
    finally:
        await tasks.stop()
        await store.close()


async def test_rows_wait_for_the_key_and_leave_sealed_in_their_order(tmp_path: Path) -> None:
    """None leaves before; one that is accepted meanwhile does not pass them."""
    async with bench_on(tmp_path) as bench:
        for name in ("a", "b"):
            assert (await bench.post(name)).waiting_topic == "news"
        assert await bench.taken() == {}
        assert bench.keys.wanted
        bench.keys.is_missing = False
        assert (await bench.post("c")).waiting_topic == "news"
        await bench.key_comes()
        found = await bench.taken()
        assert list(found) == ["a", "b", "c"]
        assert {envelope.seal.alg for envelope in found.values()} == {"secretbox"}
        assert [bench.text(envelope) for envelope in found.values()] == [f"text of {name}" for name in "abc"]
        assert (await bench.post("d")).waiting_topic is None


async def test_a_row_that_no_key_opens_dies_alone(tmp_path: Path) -> None:
    """The others of its topic are sealed."""
    async with bench_on(tmp_path) as bench:
        await bench.post("good")
        envelope = Envelope.decode((await bench.post("bad")).payload)
        broken = envelope._replace(body=b"no content").encode()
        await bench.store._db.transaction(
            lambda raw: raw.execute("UPDATE outbox SET payload = ? WHERE id = 'bad'", (broken,))
        )
        await bench.key_comes()
        assert list(await bench.taken()) == ["good"]
        row = await bench.store.get("bad")
        assert row is not None
        assert (row["status"], row["waiting_for"]) == ("dead", None)
        assert [ended.row.id for ended in bench.ended] == ["bad"]


async def test_a_row_that_is_refused_for_its_seal_is_sealed_again_under_its_id(tmp_path: Path) -> None:
    """With the key of the next epoch."""
    async with bench_on(tmp_path) as bench:
        bench.keys.is_missing = False
        await bench.post("a")
        [row] = (await bench.store.turn([], [], AT, 1)).taken
        assert Envelope.decode(row.payload).seal.key_epoch == 1
        topic = bench.rows.refused(row, "key_epoch_expired")
        assert topic == "news"
        await bench.store.turn([], [Settlement(row, Status.PENDING, "refused", waiting_topic=topic)], AT, 0)
        bench.keys.key_epoch = 2
        bench.woken.clear()
        bench.rows.written(topic)
        await bench.woken.wait()
        [again] = (await bench.taken()).values()
        assert (again.client_message_id, again.seal.key_epoch) == ("a", 2)
        assert bench.text(again) == "text of a"


async def test_a_row_of_many_attempts_is_sealed_again_too(tmp_path: Path) -> None:
    """Attempts of an outage are no refusals. A broker that takes no seal is offered it by paced retries."""
    async with bench_on(tmp_path) as bench:
        bench.keys.is_missing = False
        await bench.post("a")
        [row] = (await bench.store.turn([], [], AT, 1)).taken
        tried = [row._replace(attempts=attempts) for attempts in (0, 5, 11, 12, 13, 100, 101)]
        found = [bench.rows.refused(each, "key_epoch_expired") for each in tried]
        assert found == ["news", "news", "news", "news", None, "news", None]


async def test_a_row_under_an_epoch_that_the_broker_lacks_waits_for_it_or_for_the_present_one(
    tmp_path: Path,
) -> None:
    """It leaves as it is while its epoch may come back, and is sealed again when another one counts."""
    async with bench_on(tmp_path) as bench:
        bench.keys.is_missing = False
        bench.keys.key_epoch = 20
        await bench.post("a")
        [row] = (await bench.store.turn([], [], AT, 1)).taken
        assert bench.rows.refused(row, "key_epoch_unknown") is None
        assert bench.keys.wanted == ["news"]
        assert bench.rows.seal_offer(row.payload) is None
        bench.keys.key_epoch = 7
        offer = bench.rows.seal_offer(row.payload)
        assert offer is not None and Envelope.decode(offer).seal.key_epoch == 7
        assert bench.rows.refused(row, "key_epoch_unknown") == "news"


async def test_rows_of_a_topic_that_the_mesh_lacks_die_unless_it_may_come_back(tmp_path: Path) -> None:
    """With the reason."""
    async with bench_on(tmp_path) as bench:
        await bench.post("a")
        bench.may_come_back = True
        assert not bench.rows.topic_is_gone("news")
        bench.may_come_back = False
        assert bench.rows.topic_is_gone("news")
        while not bench.ended:  # noqa: ASYNC110 - the end has no event
            await asyncio.sleep(0.001)
        row = await bench.store.get("a")
        assert row is not None
        assert (row["status"], row["last_error"].split(":")[0]) == ("dead", "topic_not_found")
        assert await bench.store.counts() == {"pending": 0, "inflight": 0, "dead": 1}


async def test_a_row_that_an_operator_has_dropped_waits_for_no_key(tmp_path: Path) -> None:
    """The next start asks for no key because of it."""
    async with bench_on(tmp_path) as bench:
        await bench.post("a")
        assert await bench.store.topics_waited_for() == ["news"]
        await bench.store.replace("a", None, attempts=0, by="operator", now=AT)
        row = await bench.store.get("a")
        assert row is not None
        assert (row["status"], row["waiting_for"]) == ("aborted", None)
        assert await bench.store.topics_waited_for() == []
