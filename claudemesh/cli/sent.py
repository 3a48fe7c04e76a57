"""Answers to sends, as `send`, `reply` and `topic post` print them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from claudemesh.cli import output
from claudemesh.cli.next_commands import after_send


def print_sent(answer: Mapping[str, Any], mesh: str | None, *, as_json: bool) -> int:
    """Print the status and the id of a send, and return exit code 0."""
    sent = answer["client_message_id"]
    following = after_send(answer, mesh)
    return output.print_answer(
        as_json, answer, f"{answer['status']} {sent}", next=following, made=sent, hint=False
    )
