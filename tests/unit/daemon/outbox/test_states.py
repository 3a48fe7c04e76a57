"""States of an outbox row: legal steps, taken one by one on a database, and the answers to a known id."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from claudemesh.daemon.outbox.states import TRANSITIONS, KnownRow, Status, Step, answer_known, may_move
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.outbox.types import NewRow, Now, Settlement, Submission, TakenRow

ROOT = Path(__file__).parents[4]
PAYLOAD = (
    b'{"destination_kind":"topic","destination_ref":"all","priority":"next","reply_to_id":null,"body":"AAAA"}'
)
AT = Now(1_780_000_000_000, 5_000_000, 1_790_000_000_000)
ULID = "01HQXW5Z3Y8C6T0V9R4N2M7K1P"
TAKEN = TakenRow("row", "id-1", PAYLOAD, 0)
NEW = Submission("id-1", bytes(32), NewRow("row", PAYLOAD, 1, AT.wall_ms))

Operation = Callable[[OutboxStore], Awaitable[object]]


def settle(status: Literal[Status.DONE, Status.DEAD, Status.PENDING]) -> Operation:
    done = Settlement(TAKEN, status, broker_message_id=ULID, history_id=7)
    return lambda store: store.turn([], [done], AT, 0)


# Everything that may move a row: the statuses that it moves, and what each becomes. A row in any other
# status stays as it is.
OPERATIONS: dict[str, tuple[Operation, dict[Status, Status]]] = {
    "take": (lambda store: store.turn([], [], AT, 10), {Status.PENDING: Status.INFLIGHT}),
    "refuse for its size": (lambda store: store.turn([], [], AT, 10, 1), {Status.PENDING: Status.DEAD}),
    "expire": (lambda store: store.expire(AT.lived_ms + 1, 0, 10), {Status.PENDING: Status.DEAD}),
    "settle as done": (settle(Status.DONE), {Status.INFLIGHT: Status.DONE}),
    "settle as dead": (settle(Status.DEAD), {Status.INFLIGHT: Status.DEAD}),
    "settle as pending": (settle(Status.PENDING), {Status.INFLIGHT: Status.PENDING}),
    "recover": (lambda store: store.recover(AT.lived_ms, 1000), {Status.INFLIGHT: Status.PENDING}),
    "abort": (
        lambda store: store.replace("row", None, attempts=0, by="operator", now=AT),
        {Status.PENDING: Status.ABORTED, Status.DEAD: Status.ABORTED},
    ),
    "find at the broker": (
        lambda store: store.found_at_broker("row", ULID, 7, AT),
        {Status.PENDING: Status.DONE, Status.INFLIGHT: Status.DONE, Status.DEAD: Status.DONE},
    ),
}


@asynccontextmanager
async def row_in(status: Status) -> AsyncGenerator[OutboxStore]:
    """A store with one row, brought into a status by the operations themselves; `attempts` is 0."""
    with tempfile.TemporaryDirectory() as folder:
        store = await OutboxStore.open(Path(folder) / "outbox.db")
        try:
            await store.turn([NEW], [], AT, 0)
            names = {
                Status.PENDING: [],
                Status.INFLIGHT: ["take"],
                Status.DONE: ["take", "settle as done"],
                Status.DEAD: ["expire"],
                Status.ABORTED: ["abort"],
            }[status]
            for name in names:
                await OPERATIONS[name][0](store)
            yield store
        finally:
            await store.close()


async def row_of(store: OutboxStore) -> dict[str, Any]:
    row = await store.raw("row")
    assert row is not None
    return row


@pytest.mark.parametrize("origin", Status)
@pytest.mark.parametrize("name", OPERATIONS)
async def test_each_operation_moves_a_row_by_the_table_or_leaves_it_as_it_is(
    name: str, origin: Status
) -> None:
    """Every operation on every status, on a real database: those that may move and those that must not."""
    operation, moves = OPERATIONS[name]
    async with row_in(origin) as store:
        before = await row_of(store)
        assert before["status"] == origin
        await operation(store)
        after = await row_of(store)
        counts = await store.counts()
        held = {status: int(after["status"] == status) for status in ("pending", "inflight", "dead")}
        assert counts == held
    if origin not in moves:
        assert after == before
        return
    assert after["status"] == moves[origin]
    by_one_step = may_move(origin, moves[origin])
    by_way_of_inflight = may_move(origin, Status.INFLIGHT) and may_move(Status.INFLIGHT, moves[origin])
    assert by_one_step or by_way_of_inflight


def test_every_step_of_the_table_is_taken_by_an_operation() -> None:
    """A pair that nothing takes does not belong into the table."""
    taken = {step for _, moves in OPERATIONS.values() for step in moves.items()}
    assert taken - {(Status.PENDING, Status.DONE)} == {
        (origin, target) for origin in Status for target in TRANSITIONS[origin]
    }


@pytest.mark.parametrize(("origin", "target"), list(itertools.product(Status, Status)))
def test_a_step_exists_for_the_pairs_of_the_table_alone(origin: Status, target: Status) -> None:
    if may_move(origin, target):
        assert Step(origin, target).target is target
    else:
        with pytest.raises(ValueError, match=f"{origin} never becomes {target}"):
            Step(origin, target)


def test_the_diagram_in_the_docs_is_drawn_from_the_table() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawn = re.findall(r"^    (\w+) --> (\w+): (.+)$", page, re.MULTILINE)
    states = {status.value for status in Status}
    expected = [(o.value, t.value, why) for o, to in TRANSITIONS.items() for t, why in to.items()]
    assert [step for step in drawn if step[0] in states and step[1] in states] == expected


def known(status: Status) -> KnownRow:
    done = status is Status.DONE
    return KnownRow(
        "row",
        "id-1",
        status,
        bytes(range(32)),
        "payload_too_large: too large" if status is Status.DEAD else None,
        "01HQXW5Z3Y8C6T0V9R4N2M7K1P" if done else None,
        7 if done else None,
    )


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [(Status.PENDING, 202, "queued"), (Status.INFLIGHT, 202, "inflight"), (Status.DONE, 200, "done")],
)
def test_a_matching_retry_of_a_living_row_is_answered_from_it(status: Status, code: int, word: str) -> None:
    """Pending, inflight and done answer a retry without asking the broker."""
    answer = answer_known(known(status), match=True)
    assert (answer.status, answer.body["status"], answer.body["client_message_id"]) == (code, word, "id-1")


def test_a_done_row_gives_the_brokers_ids_as_a_duplicate() -> None:
    """200, duplicate, with both ids."""
    body = answer_known(known(Status.DONE), match=True).body
    assert (body["duplicate"], body["broker_message_id"], body["history_id"]) == (
        True,
        "01HQXW5Z3Y8C6T0V9R4N2M7K1P",
        7,
    )


@pytest.mark.parametrize("status", [Status.DEAD, Status.ABORTED])
def test_a_matching_retry_of_an_ended_row_is_a_conflict(status: Status) -> None:
    """Dead and aborted never free their id."""
    answer = answer_known(known(status), match=True)
    assert answer.status == 409
    assert answer.body["conflict"] == f"outbox_{status}_fingerprint_match"
    assert ("reason" in answer.body) == (status is Status.DEAD)


@pytest.mark.parametrize("status", list(Status))
def test_another_send_under_a_known_id_is_a_conflict_in_every_state(status: Status) -> None:
    """409 with the prefix of the fingerprint that the row has; the broker's id when it is done."""
    answer = answer_known(known(status), match=False)
    assert answer.status == 409
    assert answer.body["error"] == "idempotency_key_reused"
    assert answer.body["conflict"] == f"outbox_{status}_fingerprint_mismatch"
    assert answer.body["daemon_fingerprint_prefix"] == "0001020304050607"
    assert ("broker_message_id" in answer.body) == (status is Status.DONE)
