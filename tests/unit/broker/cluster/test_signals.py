"""Signals: encoding within the bound of NOTIFY, merging of wake-ups, and signals that are not applied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from claudemesh.broker.cluster.signals import IDS_BESIDE_DATA, IDS_PER_SIGNAL, Signal, Signals, chunks
from tests.support.environment import SignalStore, environment
from tests.support.waiting import WAIT_S

UUID = "01899e2d-0000-7000-8000-000000000001"
# The bound of a payload of NOTIFY, in bytes.
MAX_PAYLOAD = 8000


def signals(store: SignalStore | None) -> Signals:
    """Return the signals of the broker `one` on this store."""
    shared: Any = store
    return Signals(shared, environment())


async def until(condition: Callable[[], bool]) -> None:
    """Let the tasks work until something is so."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the store has no event for a sent signal
            await asyncio.sleep(0)


def test_a_full_signal_fits_into_a_notification() -> None:
    ids = [UUID] * IDS_PER_SIGNAL
    payload = {"from": "b" * 26, "kind": "wake", "mesh": UUID, "members": ids}
    assert len(orjson.dumps(payload)) < MAX_PAYLOAD


def test_chunks_hold_every_id_once_in_order() -> None:
    ids = [str(number) for number in range(2 * IDS_BESIDE_DATA + 1)]
    parts = list(chunks(ids, IDS_BESIDE_DATA))
    assert [len(part) for part in parts] == [IDS_BESIDE_DATA, IDS_BESIDE_DATA, 1]
    assert [one for part in parts for one in part] == ids
    assert list(chunks([])) == []


async def test_an_embedded_broker_publishes_nothing() -> None:
    alone = signals(None)
    alone.start(lambda: None)
    alone.publish("directory", mesh=UUID)
    alone.publish_queue(UUID, "jobs")
    alone.publish_wakeup(UUID, [UUID])
    assert not alone.is_shared
    await alone.stop()


async def test_wakeups_and_queues_wait_for_company() -> None:
    store = SignalStore()
    one = signals(store)
    one.publish_wakeup("mesh", ["ada"])
    one.publish_queue("mesh", "jobs")
    one.note_company(present=True)
    one.publish_queue("mesh", "later")
    await one.stop()
    assert [signal.get("queue") for signal in store.sent] == ["later"]


async def test_wakeups_during_a_send_are_merged_into_the_next() -> None:
    store = SignalStore()
    one = signals(store)
    one.note_company(present=True)
    one.publish_wakeup("mesh", ["ada"])
    one.publish_wakeup("mesh", ["ada", "bob"])
    await until(lambda: bool(store.sent))
    assert [sorted(signal["members"]) for signal in store.sent] == [["ada", "bob"]]
    await one.stop()


async def test_a_signal_reaches_the_handlers_of_its_kind_in_their_order() -> None:
    store, applied = SignalStore(), list[tuple[str, Signal]]()
    one = signals(store)
    one.subscribe("close", lambda signal: applied.append(("first", signal)))
    one.subscribe("close", lambda signal: applied.append(("second", signal)))
    one.subscribe("queue", lambda signal: applied.append(("queue", signal)))
    one.start(lambda: None)
    await store.receive("close", mesh="mesh", member="ada")
    assert [name for name, _ in applied] == ["first", "second"]
    assert applied[0][1]["member"] == "ada"
    assert one.has_company
    await one.stop()


@pytest.mark.parametrize(
    "payload",
    ["", "[]", "{}", '{"from":"one","kind":"queue"}', '{"from":"two"}', '{"from":"two","kind":"new"}'],
    ids=["not JSON", "a list", "empty", "its own", "without a kind", "an unknown kind"],
)
async def test_a_signal_that_cannot_be_applied_is_dropped(payload: str) -> None:
    store, applied = SignalStore(), list[Signal]()
    one = signals(store)
    one.subscribe("queue", applied.append)
    one.start(lambda: None)
    await store.pass_on(payload)
    assert applied == []
    await one.stop()


async def test_a_handler_that_lacks_a_field_does_not_end_listening() -> None:
    store, applied = SignalStore(), list[str]()
    one = signals(store)
    one.subscribe("queue", lambda signal: applied.append(signal["queue"]))
    one.start(lambda: None)
    await store.receive("queue", mesh="mesh")
    await store.receive("queue", mesh="mesh", queue="jobs")
    assert applied == ["jobs"]
    await one.stop()
