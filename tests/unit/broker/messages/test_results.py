"""One table from outcome and error to what a send is answered with."""

from __future__ import annotations

import orjson
import pytest

from claudemesh.broker.limiter.base import Decision
from claudemesh.broker.messages.results import accepted, existing, of_error, rate_limited, refused
from claudemesh.broker.store.types import DedupeRow
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.frames import SendResult
from claudemesh.protocol.outcomes import PERMANENT_ERRORS, Dead, Done, Retry, classify
from claudemesh.runtime.batching import Overloaded
from claudemesh.runtime.errors import StorageBroken, StorageFull, StorageUnavailable

MESSAGE = "01J0000000000000000000000A"
ROW = DedupeRow(MESSAGE, 7, b"\x01" * 32, "dm", "ab" * 32, 1234)


def test_the_first_insert_is_201() -> None:
    """The ids, and that it is not a duplicate."""
    answer = accepted("deploy-42", MESSAGE, 7)
    assert answer.status == 201
    assert orjson.loads(answer.frame("r1")) == {
        "type": "send_result",
        "id": "r1",
        "status": 201,
        "broker_message_id": MESSAGE,
        "client_message_id": "deploy-42",
        "history_id": 7,
        "duplicate": False,
    }


def test_the_same_fingerprint_is_200_and_any_other_409() -> None:
    """An id is compared by the fingerprint that the send claims; none at all is another one."""
    assert existing("deploy-42", b"\x01" * 32, ROW).status == 200
    for claimed in (b"\x02" * 32, None):
        conflict = existing("deploy-42", claimed, ROW)
        assert conflict.status == 409
        assert conflict.fields["broker_fingerprint_prefix"] == "01" * 8


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidField("invalid_envelope", "body", "…"), 400, "invalid_envelope"),
        (ProtocolError("payload_too_large", "…"), 413, "payload_too_large"),
        (ProtocolError("fingerprint_drift", "…"), 422, "fingerprint_drift"),
        (Overloaded(), 503, "broker_busy"),
        (StorageFull("…"), 503, "storage_full"),
        (StorageUnavailable("…"), 503, "storage_unavailable"),
        (StorageBroken("…"), 503, "storage_unavailable"),
        (ValueError("…"), 500, "internal_error"),
    ],
)
def test_each_error_has_one_status_and_code(error: Exception, status: int, code: str) -> None:
    """Permanent for what the sender did, transient for what happened to the broker."""
    answer = of_error(error)
    assert (answer.status, answer.fields["error"]) == (status, code)
    assert answer.fields["message"]


def test_daemons_read_every_answer_as_it_is_meant() -> None:
    """Both sides agree on which answers are final."""

    def outcome(answer: object) -> object:
        return classify(SendResult(1, answer.status, answer.fields))  # type: ignore[attr-defined]

    assert isinstance(outcome(accepted("a", MESSAGE, 7)), Done)
    assert isinstance(outcome(existing("a", b"\x01" * 32, ROW)), Done)
    assert isinstance(outcome(existing("a", None, ROW)), Dead)
    for code in ("not_a_member", "destination_not_found"):
        assert code in PERMANENT_ERRORS
        assert isinstance(outcome(refused(code)), Dead)
    assert isinstance(outcome(of_error(ProtocolError("fingerprint_drift", "…"))), Dead)
    assert isinstance(outcome(of_error(StorageUnavailable("…"))), Retry)
    assert isinstance(outcome(of_error(ValueError("…"))), Retry)
    limited = outcome(rate_limited(Decision(False, 1500, "member")))
    assert isinstance(limited, Retry)
    assert limited.retry_after_ms == 1500
