"""One place turns what was raised into an answer, and every answer has the same shape."""

from __future__ import annotations

import logging

import pytest

from claudemesh.daemon.api.failures import not_found, reply_to
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.runtime.errors import (
    StorageBroken,
    StorageCorrupt,
    StorageFull,
    StorageUnavailable,
)
from claudemesh.runtime.web.errors import method_not_allowed


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidField("invalid_topic", "topic", "Give a topic."), 400, "invalid_topic"),
        (
            ProtocolError("destination_not_found", "No such member.", near=["bob"]),
            404,
            "destination_not_found",
        ),
        (ProtocolError("broker_unavailable", "Try again."), 503, "broker_unavailable"),
        (not_found(), 404, "not_found"),
        (method_not_allowed(["POST"]), 405, "method_not_allowed"),
        (StorageFull("the disk is full"), 507, "insufficient_storage"),
        (StorageUnavailable("locked"), 503, "storage_unavailable"),
        (StorageBroken("the disk failed"), 500, "storage_broken"),
        (StorageCorrupt("damaged"), 500, "storage_corrupt"),
        (RuntimeError("secret detail"), 500, "internal_error"),
    ],
)
def test_an_error_has_its_status_and_the_one_shape(error: Exception, status: int, code: str) -> None:
    """{error, message, …}: the message is a sentence."""
    reply = reply_to(error)
    assert reply.status == status
    assert isinstance(reply.body, dict)
    assert reply.body["error"] == code
    assert reply.body["message"].endswith(".")


def test_the_fields_of_the_case_travel() -> None:
    """Similar names, the field, the limit: all fields of the error."""
    reply = reply_to(ProtocolError("destination_not_found", "No.", near=["bob"]))
    assert isinstance(reply.body, dict)
    assert reply.body["near"] == ["bob"]


def test_an_unexpected_error_is_logged_and_not_described(caplog: pytest.LogCaptureFixture) -> None:
    """500 internal_error without details; the log has the traceback."""
    with caplog.at_level(logging.ERROR, logger="claudemesh.api"):
        reply = reply_to(RuntimeError("secret detail"))
    assert "secret" not in str(reply.body)
    assert [record.getMessage() for record in caplog.records] == ["request_failed"]
    assert caplog.records[0].exc_info is not None


def test_405_says_what_is_allowed() -> None:
    """The Allow header, and the sentence."""
    reply = reply_to(method_not_allowed(["POST", "GET"]))
    assert (b"allow", b"GET, HEAD, POST") in reply.headers
