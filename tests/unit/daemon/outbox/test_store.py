"""outbox.db: group commit, idempotency, legal steps only, and answers on a full disk."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claudemesh.daemon.outbox.states import TRANSITIONS, Answer, Status
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.types import Expired, NewRow, Now, Settlement, Submission, TakenRow, Totals
from claudemesh.runtime.errors import StorageFull
from claudemesh.runtime.queries import load_queries

NOW = 1_780_000_000_000
LIVED = 5_000_000
BROKER = 1_790_000_000_000
AT = Now(NOW, LIVED, BROKER)
PAYLOAD = b'{"destination_kind":"topic","destination_ref":"all","priority":"next","reply_to_id":null}'
_Q = load_queries("claudemesh.daemon.sql", "outbox.sql")
NOBODY = Answer(404, {"error": "destination_not_found"})


@asynccontextmanager
async def opened() -> AsyncGenerator[OutboxStore]:
    with tempfile.TemporaryDirectory() as folder:
        store = await OutboxStore.open(Path(folder) / "outbox.db")
        try:
            yield store
        finally:
            await store.close()


def submission(
    client_message_id: str, fingerprint: int = 1, priority: int = 1, now_ms: int = NOW
) -> Submission:
    row = NewRow(f"row-{client_message_id}", PAYLOAD, priority, now_ms)
    return Submission(client_message_id, bytes([fingerprint]) * 32, row)


async def submit(store: OutboxStore, *submissions: Submission) -> list[Answer]:
    """Insert without claiming."""
    return list((await store.turn(submissions, [], AT, 0)).answers)


async def step(store: OutboxStore, settlements: list[Settlement], limit: int) -> list[TakenRow]:
    """Write results and take."""
    return list((await store.turn([], settlements, AT, limit)).taken)


async def statuses(store: OutboxStore) -> dict[str, str]:
    items, _ = await store.page(None, 500, None)
    return {item["client_message_id"]: item["status"] for item in items}


async def test_the_same_id_twice_in_one_batch_makes_one_row() -> None:
    """Two concurrent posts of one id: one row, 202 and 202, or 202 and 409."""
    async with opened() as store:
        answers = await submit(store, submission("a"), submission("a"), submission("a", fingerprint=2))
        assert [answer.status for answer in answers] == [202, 202, 409]
        assert await statuses(store) == {"a": "pending"}


async def test_a_refusal_is_only_for_unknown_ids_and_consumes_none() -> None:
    """Look-up comes before anything that could fail."""
    async with opened() as store:
        await submit(store, submission("a"))
        refused = [Submission(name, bytes([1]) * 32, None, NOBODY) for name in ("a", "b")]
        assert [answer.status for answer in await submit(store, *refused)] == [202, 404]
        assert await statuses(store) == {"a": "pending"}


async def test_a_full_disk_still_answers_known_ids() -> None:
    """507 for new ids, the row's answer for known ones, and nothing half-written."""
    async with opened() as store:
        await submit(store, submission("a"))
        await store._db.run(lambda raw: raw.execute("PRAGMA max_page_count = 1"))
        large = Submission("b", bytes(32), NewRow("row-b", b"x" * 100_000, 1, NOW))
        batch = [submission("a"), large, submission("a", fingerprint=9)]
        with pytest.raises(StorageFull):
            await submit(store, *batch)
        answers = await store.answer_without_space(batch)
        assert [answer.status for answer in answers] == [202, 507, 409]
        await store._db.run(lambda raw: raw.execute("PRAGMA max_page_count = 100000"))
        assert [answer.status for answer in await submit(store, large)] == [202]


async def test_due_rows_go_by_priority_then_age() -> None:
    """`now` before `next` before `low`; within one, the order of acceptance."""
    async with opened() as store:
        order = [("low1", 2), ("next1", 1), ("now1", 0), ("next2", 1), ("now2", 0)]
        await submit(store, *[submission(name, priority=priority) for name, priority in order])
        taken = await step(store, [], 4)
        assert [row.client_message_id for row in taken] == ["now1", "now2", "next1", "next2"]
        assert (await statuses(store))["low1"] == "pending"


async def test_a_send_with_nothing_ahead_of_it_is_in_flight_with_its_first_write() -> None:
    """As many as there is room for, the most urgent first; each is one change of one row."""
    async with opened() as store:
        order = [("low1", 2), ("next1", 1), ("now1", 0), ("next2", 1)]
        sends = [submission(name, priority=priority) for name, priority in order]
        before = await store._db.run(lambda raw: raw.total_changes)
        turn = await store.turn(sends, [], AT, 3)
        assert await store._db.run(lambda raw: raw.total_changes) - before == len(order)
        assert [answer.status for answer in turn.answers] == [202] * 4
        assert [row.client_message_id for row in turn.taken] == ["now1", "next1", "next2"]
        assert (await statuses(store))["low1"] == "pending"
        assert await store.counts() == {"pending": 1, "inflight": 3, "dead": 0}
        sent_ms = (await store.raw("now1") or {})["first_sent_broker_ms"]
        assert (sent_ms, (await store.raw("low1") or {})["first_sent_broker_ms"]) == (BROKER, None)
        # A crash before they leave: pending again, with one more attempt.
        assert await store.recover(LIVED, 10**6) == 3
        assert set((await statuses(store)).values()) == {"pending"}


async def test_no_send_leaves_ahead_of_a_row_that_is_ready() -> None:
    """Also not ahead of one whose wait ends in the same turn."""
    async with opened() as store:
        await submit(store, submission("old"))
        [old] = await step(store, [], 1)
        await step(store, [Settlement(old, Status.PENDING, "later", AT.lived_ms)], 0)
        turn = await store.turn([submission("new")], [], AT, 1)
        assert [row.client_message_id for row in turn.taken] == ["old"]
        assert await statuses(store) == {"old": "inflight", "new": "pending"}


async def test_a_send_that_cannot_leave_is_not_in_flight() -> None:
    """One waits for its key, the other is larger than the broker takes."""
    async with opened() as store:
        body = PAYLOAD.replace(b"{", b'{"body":"%b",' % (b"x" * 400))
        rows = [NewRow("r1", PAYLOAD, 1, NOW, "all"), NewRow("r2", body, 1, NOW)]
        sends = [Submission(row.id, bytes(32), row) for row in rows]
        turn = await store.turn(sends, [], AT, 5, inline_bytes=100)
        assert (turn.taken, [ended.row.id for ended in turn.refused]) == ([], ["r2"])
        assert await statuses(store) == {"r1": "pending", "r2": "dead"}


async def test_recovery_makes_inflight_pending_and_clamps_waits() -> None:
    """At start: inflight to pending with attempts + 1, and no row stranded by a clock that jumped."""
    async with opened() as store:
        await submit(store, submission("a"), submission("b"))
        [row] = await step(store, [], 1)
        far = Settlement(row, Status.PENDING, "rate_limited", LIVED + 10**10)
        await step(store, [far], 1)
        assert await store.recover(LIVED, 37_500) == 1
        items = {item["client_message_id"]: item for item in (await store.page(None, 10, None))[0]}
        assert items["a"]["due_lived_ms"] == LIVED + 37_500
        assert (items["b"]["status"], items["b"]["attempts"]) == ("pending", 1)


async def test_old_rows_die_and_say_whether_they_may_have_been_accepted() -> None:
    """Pending to dead by age; a row that was sent before may have been accepted."""
    async with opened() as store:
        await submit(store, submission("never"), submission("once"))
        rows = await step(store, [], 2)
        await step(store, [Settlement(row, Status.PENDING, "x") for row in rows[1:]], 0)
        await step(store, [Settlement(rows[0], Status.DEAD, "x")], 0)
        assert await store.expire(LIVED, BROKER, 10) == []
        assert await store.expire(LIVED + 1, 0, 10) == [Expired("row-once", "once")]
        row = await store.get("once")
        assert row is not None
        assert "may have accepted" in row["last_error"]


async def test_payloads_of_done_rows_are_dropped_but_the_id_is_kept() -> None:
    """A pruned row keeps id, fingerprint, status and the broker's ids."""
    async with opened() as store:
        await submit(store, submission("a"))
        [row] = await step(store, [], 1)
        ulid = "01HQXW5Z3Y8C6T0V9R4N2M7K1P"
        await step(store, [Settlement(row, Status.DONE, broker_message_id=ulid, history_id=3)], 0)
        assert await store.drop_payloads(LIVED, 10) == 0
        assert await store.drop_payloads(LIVED + 1, 10) == 1
        [answer] = await submit(store, submission("a"))
        assert (answer.status, answer.body["broker_message_id"]) == (200, ulid)


async def test_replacing_a_row_is_one_transaction_and_refuses_one_that_left_meanwhile() -> None:
    """Requeue: aborted with a successor, or nothing at all."""
    async with opened() as store:
        await submit(store, submission("a"))
        status, answer = await store.replace("a", submission("b"), attempts=0, by="operator", now=AT)
        assert (status, answer and answer.status) == (Status.PENDING, 202)
        row = await store.get("a")
        assert row is not None
        assert (row["status"], row["chain"][0]["client_message_id"]) == ("aborted", "b")
        await step(store, [], 1)
        status, answer = await store.replace("b", submission("c"), attempts=0, by="operator", now=AT)
        assert (status, answer) == (Status.INFLIGHT, None)
        assert "c" not in await statuses(store)


async def test_a_successor_whose_id_is_taken_changes_nothing() -> None:
    """The new id of a requeue must be new."""
    async with opened() as store:
        await submit(store, submission("a"), submission("b", fingerprint=2))
        _, answer = await store.replace("a", submission("b"), attempts=0, by="operator", now=AT)
        assert answer is not None
        assert answer.status == 409
        assert await statuses(store) == {"a": "pending", "b": "pending"}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "claim", "done", "dead", "retry", "recover", "replace", "drop", "expire"]),
        st.integers(0, 3),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_no_history_of_operations_makes_an_illegal_step(steps: list[tuple[str, int]]) -> None:
    """For any order of operations, each row's status changes by the table, and no row is deleted."""

    async def scenario() -> None:
        async with opened() as store:
            inflight: dict[str, TakenRow] = {}
            before: dict[str, str] = {}
            for number, (step, which) in enumerate(steps):
                await _apply(store, step, f"m{which}", number, inflight)
                after = await statuses(store)
                counted = await store._db.run(lambda raw: raw.execute(_Q["totals"]).fetchone())
                assert store._totals == Totals(*counted), step
                assert before.keys() <= after.keys()
                for client_message_id, status in before.items():
                    moved = Status(after[client_message_id])
                    legal = _reachable(Status(status))
                    assert moved == Status(status) or moved in legal, (step, status, moved)
                before = after

    asyncio.run(scenario())


def _reachable(status: Status) -> set[Status]:
    """One operation may make two steps in one transaction: settled, and taken again."""
    one = TRANSITIONS[status]
    return set(one) | {further for step in one for further in TRANSITIONS[step]}


async def _apply(
    store: OutboxStore, action: str, client_message_id: str, number: int, inflight: dict[str, TakenRow]
) -> None:
    if action == "submit":
        await submit(store, submission(client_message_id))
    elif action == "claim":
        inflight.update({row.client_message_id: row for row in await step(store, [], 2)})
    elif action in ("done", "dead", "retry"):
        status = {"done": Status.DONE, "dead": Status.DEAD, "retry": Status.PENDING}[action]
        row = inflight.pop(client_message_id, TakenRow("none", "none", b"", 0))
        await step(store, [Settlement(row, status, "x", LIVED)], 0)  # type: ignore[arg-type]
    elif action == "recover":
        inflight.clear()
        await store.recover(LIVED, 1000)
    elif action == "expire":
        await store.expire(LIVED + 1, BROKER, 1)
    else:
        successor = submission(f"n{number}") if action == "replace" else None
        row_now = await store.raw(client_message_id)
        attempts = row_now["attempts"] if row_now else 0
        await store.replace(client_message_id, successor, attempts=attempts, by="test", now=AT)


@pytest.mark.parametrize("status", ["pending", "dead", "done", None])
async def test_a_page_by_status_goes_on_where_the_page_before_ended(status: str | None) -> None:
    """Oldest first, or newest first."""
    async with opened() as store:
        await submit(store, *[submission(f"m{number}") for number in range(5)])
        taken = await step(store, [], 5)
        if status in ("dead", "done", "pending"):
            await step(store, [Settlement(row, Status(status), "x", LIVED) for row in taken], 0)  # type: ignore[arg-type]
        wanted = None if status is None else Status(status)
        first, cursor = await store.page(wanted, 3, None)
        rest, end = await store.page(wanted, 3, cursor)
        assert [item["client_message_id"] for item in first + rest] == [f"m{n}" for n in range(5)]
        assert end is None
        last, cursor = await store.page(wanted, 3, None, newest_first=True)
        rest, end = await store.page(wanted, 3, cursor, newest_first=True)
        assert [item["client_message_id"] for item in last + rest] == [f"m{n}" for n in reversed(range(5))]
        assert end is None
