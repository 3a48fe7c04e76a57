"""Answers to local sends."""

from __future__ import annotations

from claudemesh.daemon.outbox.local import unwritten
from claudemesh.daemon.outbox.states import Answer


def test_a_message_whose_row_is_missing_is_not_said_to_be_lost() -> None:
    """The answer names the id under which a repeated send is no second message."""
    answer = unwritten(Answer(507, {"error": "insufficient_storage", "message": "Nothing was kept."}), "made")
    assert (answer.status, answer.body["client_message_id"]) == (507, "made")
    assert "made" in answer.body["message"] and "Nothing" not in answer.body["message"]
