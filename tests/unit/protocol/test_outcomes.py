from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol.frames import SendResult
from claudemesh.protocol.outcomes import (
    MAX_RETRY_AFTER_MS,
    PERMANENT_ERRORS,
    Dead,
    Done,
    Retry,
    classify,
)
from tests.support.envelopes import ULID_TEXT

ACCEPTED = {"broker_message_id": ULID_TEXT, "client_message_id": "a", "history_id": 5, "duplicate": False}
PERMANENT_CASES = [
    (400, "invalid_envelope"),
    (403, "not_a_member"),
    (404, "destination_not_found"),
    (404, "topic_not_found"),
    (413, "payload_too_large"),
    (422, "fingerprint_drift"),
]


def result(status: int, **fields: Any) -> SendResult:
    return SendResult("1", status, fields)


def test_accepted_is_done() -> None:
    """201."""
    assert classify(result(201, **ACCEPTED)) == Done(ULID_TEXT, 5, duplicate=False)


def test_accepted_before_is_done() -> None:
    """200, the same ids."""
    assert classify(result(200, **{**ACCEPTED, "duplicate": True})) == Done(ULID_TEXT, 5, duplicate=True)


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize(
    "change",
    [
        {"broker_message_id": None},
        {"broker_message_id": "x"},
        {"broker_message_id": 5},
        {"history_id": None},
        {"history_id": True},
        {"history_id": "5"},
        {"history_id": -1},
        {"history_id": 2**63},
        {"history_id": 5.0},
    ],
)
def test_success_that_cannot_be_recorded_is_asked_again(status: int, change: dict[str, object]) -> None:
    """A success without valid ids is retried."""
    assert classify(result(status, **{**ACCEPTED, **change})) == Retry("malformed_result", None)


@pytest.mark.parametrize(("status", "error"), PERMANENT_CASES)
def test_listed_permanent_code_is_dead(status: int, error: str) -> None:
    """The 4xx codes of the page."""
    assert classify(result(status, error=error, message="why")) == Dead(error, "why")


def test_list_of_permanent_codes_is_walked_whole() -> None:
    """A code that is added must be added here."""
    assert {error for _, error in PERMANENT_CASES} | {"idempotency_key_reused"} == PERMANENT_ERRORS


@pytest.mark.parametrize("error", ["idempotency_key_reused", None, "anything"])
def test_conflict_is_dead(error: str | None) -> None:
    """409: the id belongs to another send."""
    outcome = classify(result(409, error=error))
    assert isinstance(outcome, Dead)
    assert outcome.message


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 413, 422, 425, 429, 418, 499])
@pytest.mark.parametrize("error", ["unlisted", None, 5])
def test_unlisted_refusal_is_asked_again(status: int, error: object) -> None:
    """Other refusals are retried."""
    assert isinstance(classify(result(status, error=error, message="m")), Retry)


@pytest.mark.parametrize("status", [100, 202, 302, 401, 408, 425, 429, 500, 503, 599])
@pytest.mark.parametrize("error", sorted(PERMANENT_ERRORS))
def test_permanent_code_under_a_transient_status_is_asked_again(status: int, error: str) -> None:
    """Status and code must both be permanent."""
    assert classify(result(status, error=error)) == Retry(error, None)


def test_broker_s_wait_is_honoured() -> None:
    """429 with retry_after_ms."""
    limited = result(429, error="rate_limited", retry_after_ms=1500)
    assert classify(limited) == Retry("rate_limited", 1500, holds_all=True)


def test_a_limit_of_one_destination_holds_back_nothing_else() -> None:
    """The result has that scope. Every other limit counts the member or its mesh."""
    limited = result(429, error="rate_limited", retry_after_ms=1500, scope="destination")
    assert classify(limited) == Retry("rate_limited", 1500)


@pytest.mark.parametrize("wait", [None, True, "5", 1.5, -1, [], float("nan")])
def test_wait_that_makes_no_sense_is_none(wait: object) -> None:
    """The backoff of the daemon decides then."""
    assert classify(result(429, error="rate_limited", retry_after_ms=wait)) == Retry("rate_limited", None)


def test_wait_is_bounded() -> None:
    """At most one hour."""
    limited = result(429, error="rate_limited", retry_after_ms=2**60)
    assert classify(limited) == Retry("rate_limited", MAX_RETRY_AFTER_MS, holds_all=True)


def test_texts_are_bounded() -> None:
    """The column last_error is short."""
    outcome = classify(result(400, error="invalid_envelope", message="x" * 100_000))
    assert isinstance(outcome, Dead)
    assert len(outcome.message) == 500


@given(
    st.integers(100, 599),
    st.dictionaries(st.sampled_from([*ACCEPTED, "error", "message"]), st.none() | st.text()),
)
def test_any_result_has_an_outcome(status: int, fields: dict[str, object]) -> None:
    """No exception, and done only with valid ids."""
    assert isinstance(classify(SendResult("1", status, fields)), Dead | Retry)
