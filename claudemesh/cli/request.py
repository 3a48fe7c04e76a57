"""`claudemesh request`: send a message and wait for its reply."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import click

from claudemesh.cli import output
from claudemesh.cli.follower import following, patiently
from claudemesh.cli.message_text import message_text
from claudemesh.cli.options import Duration, complete_members, json_option, mesh_option
from claudemesh.client.errors import ApiError
from claudemesh.client.local import LocalClient
from claudemesh.runtime.exits import TEMPORARY, UNAVAILABLE, ExitWith
from claudemesh.sdk import new_id

_LONGEST_WAIT_MS = 30_000


@dataclass(frozen=True, slots=True)
class _Question:
    """A send that the broker has accepted; `of` is the recipient's key when it is a direct message."""

    broker_message_id: str
    of: str | None

    def is_answered_by(self, item: dict[str, Any]) -> bool:
        """Tell whether a message is the reply."""
        return item["reply_to_id"] == self.broker_message_id and self.of in (None, item["sender_pubkey"])


@click.command()
@click.argument("to", shell_complete=complete_members)
@click.argument("text", required=False)
@click.option("--timeout", type=Duration(), default="60s", show_default=True)
@mesh_option
@json_option
def request(to: str, text: str | None, timeout: int, mesh: str | None, as_json: bool) -> None:
    """Send TEXT, or what comes on stdin, and print the reply; exit 75 when none comes in time.

    The daemon may be restarted meanwhile.

    \b
    claudemesh request alice 'may I deploy?' --timeout 10m
    """
    message = message_text(text)
    client = LocalClient(mesh)
    deadline = time.monotonic() + timeout
    # The position comes before the question: no answer is faster than that.
    newest = client.get("/v1/inbox", order="desc", limit=1)["items"]
    since = newest[0]["seq"] if newest else 0
    question = _ask(client, to, message, deadline, timeout)
    with following(client) as follow:
        for answer in follow.daemon.messages(since, timeout_s=max(0.001, deadline - time.monotonic())):
            if question.is_answered_by(answer.data):
                _show(answer.data, as_json)
                return
    if not follow.reader_gone:
        raise ExitWith(TEMPORARY, "timeout", f"{to} has not answered within {timeout} s.")


def _ask(client: LocalClient, to: str, message: str, deadline: float, timeout: int) -> _Question:
    """Send under one id, again until the broker has the message."""
    message_id = new_id()
    body = {"to": to, "message": message, "client_message_id": message_id}

    def send() -> dict[str, Any]:
        left_ms = max(1, min(_LONGEST_WAIT_MS, int((deadline - time.monotonic()) * 1000)))
        return client.post(f"/v1/send?wait_ms={left_ms}", body)

    def look() -> dict[str, Any]:
        return client.get(f"/v1/outbox/{message_id}")

    while True:
        try:
            answer = patiently(send, deadline)
        except ApiError as error:
            if error.status != 409:
                raise
            row = patiently(look, deadline)
            text = f"{message_id} is {row['status']}: {row['last_error']}."
            raise ExitWith(UNAVAILABLE, f"outbox_{row['status']}", text) from error
        question = answer.get("broker_message_id")
        if question is not None:
            row = patiently(look, deadline)
            is_dm = row.get("destination_kind") == "dm"
            return _Question(question, row["destination_ref"] if is_dm else None)
        if time.monotonic() > deadline:
            text = (
                f"The broker has not accepted it within {timeout} s. It stays queued as {message_id}: "
                f"`claudemesh daemon outbox drop {message_id}` takes it back."
            )
            raise ExitWith(TEMPORARY, "not_sent_yet", text)


def _show(item: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(item)
    else:
        output.body(item["body"] or "")
