"""`claudemesh request`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.follower import following, retry_over_restart
from claudemesh.cli.inbox_view import note_cut
from claudemesh.cli.lookup import find_received
from claudemesh.cli.message_text import TextCommand, message_text, text_argument
from claudemesh.cli.options import Duration, complete_members, json_option, mesh_option
from claudemesh.client.errors import ApiError
from claudemesh.client.local import LocalClient
from claudemesh.client.long_text import post_text
from claudemesh.runtime.exits import TEMPORARY, UNAVAILABLE, ExitWith
from claudemesh.sdk import new_id

_LONGEST_WAIT_MS = 30_000
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Question:
    """A send that the broker has accepted; `recipient` is a public key for a direct message, else None."""

    broker_message_id: str
    recipient: str | None

    def is_answered_by(self, item: dict[str, Any]) -> bool:
        """Whether a message is the reply: it names this send, and its sender is the recipient."""
        is_named = item["reply_to_id"] == self.broker_message_id
        return is_named and self.recipient in (None, item["sender_pubkey"])


@click.command(cls=TextCommand)
@click.argument("to", shell_complete=complete_members)
@text_argument
@click.option(
    "--timeout", type=Duration(), default="60s", show_default=True, help="Time limit, such as 30s or 10m."
)
@mesh_option
@json_option
@answers.exits({75: "No reply has arrived in time."})
@answers.one("InboxItem")
def request(
    to: str,
    text: str | None,
    file: Path | None,
    allow_empty: bool,
    timeout: int,
    mesh: str | None,
    as_json: bool,
) -> None:
    """Send a message and print the reply to it. The exit code is 75 when none comes in time.

    TO is a member's name or public key, #TOPIC or queue:NAME. The text is TEXT or the content of --file, or
    standard input when both are missing or TEXT is `-`. When TO is a member, only a reply from that member
    counts. The command continues over a restart of the daemon.

    \b
    Examples:
      claudemesh request alice 'may I deploy?' --timeout 10m
    """
    message = message_text(text, file, allow_empty=allow_empty)
    client = LocalClient(mesh)
    deadline = time.monotonic() + timeout
    # The position is read before the send, so that the reply is always after it.
    newest = client.get("/v1/inbox", order="desc", limit=1)["items"]
    since = newest[0]["seq"] if newest else 0
    question = _ask(client, to, message, deadline, timeout)
    with following(client) as follow:
        for answer in follow.daemon.messages(since, timeout_s=max(0.001, deadline - time.monotonic())):
            if question.is_answered_by(answer.data):
                _show(client, answer.data, as_json)
                return
    if not follow.reader_gone:
        raise ExitWith(TEMPORARY, "timeout", f"No reply from {to} has arrived within {timeout} s.")


def _ask(client: LocalClient, to: str, message: str, deadline: float, timeout: int) -> _Question:
    """Send, with the same id at each retry, until the broker has accepted the message."""
    client_message_id = new_id()
    body = {"to": to, "message": message, "client_message_id": client_message_id}

    def send() -> dict[str, Any]:
        left_ms = max(1, min(_LONGEST_WAIT_MS, int((deadline - time.monotonic()) * 1000)))
        return post_text(client, f"/v1/send?wait_ms={left_ms}", body)

    def look() -> dict[str, Any]:
        return client.get(f"/v1/outbox/{client_message_id}")

    def look_for() -> dict[str, Any]:
        try:
            return look()
        except ApiError as error:
            if error.status != 404:
                raise
            # A long text has no row before the broker has its file.
            return {}

    while True:
        try:
            answer = retry_over_restart(send, deadline)
        except ApiError as error:
            if error.status != 409:
                raise
            row = retry_over_restart(look, deadline)
            text = f"The send {client_message_id} is {row['status']}: {row['last_error']}."
            inspect = f"claudemesh daemon outbox inspect {client_message_id}"
            raise ExitWith(UNAVAILABLE, f"outbox_{row['status']}", text, next=inspect) from error
        question = answer.get("broker_message_id")
        if question is None:
            # The answer to a long text comes at once, and never has it.
            question = retry_over_restart(look_for, deadline).get("broker_message_id")
        if question is not None:
            row = retry_over_restart(look, deadline)
            is_dm = row.get("destination_kind") == "dm"
            return _Question(question, row["destination_ref"] if is_dm else None)
        if time.monotonic() > deadline:
            text = (
                f"The broker has not accepted the message within {timeout} s. It stays queued, unless you "
                f"drop it, as {client_message_id}."
            )
            drop = f"claudemesh daemon outbox drop {client_message_id}"
            raise ExitWith(TEMPORARY, "not_sent_yet", text, next=drop)
        time.sleep(max(0.0, min(_PAUSE_S, deadline - time.monotonic())))


def _show(client: LocalClient, item: dict[str, Any], as_json: bool) -> None:
    if item.get("body_truncated"):
        # The stream has the beginning of a long text.
        item = find_received(client, item["id"]) or item
    if as_json:
        output.print_json(item)
        return
    output.body(item["body"] or "")
    note_cut(item)
