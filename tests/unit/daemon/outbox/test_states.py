"""The outbox's tables: legal steps, and what a known id is answered (docs/spec/daemon.md, POST /v1/send)."""

from __future__ import annotations

import itertools

import pytest

from claudemesh.daemon.outbox.states import TRANSITIONS, KnownRow, Status, answer_known

LEGAL = {
    ("pending", "inflight"),
    ("pending", "dead"),
    ("pending", "aborted"),
    ("inflight", "done"),
    ("inflight", "dead"),
    ("inflight", "pending"),
    ("dead", "aborted"),
    ("dead", "done"),
}


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


@pytest.mark.parametrize(("origin", "target"), list(itertools.product(Status, Status)))
def test_only_the_listed_transitions_are_legal(origin: Status, target: Status) -> None:
    """All 25 pairs: the listed ones may happen, no other does."""
    assert (target in TRANSITIONS[origin]) == ((origin.value, target.value) in LEGAL)


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
