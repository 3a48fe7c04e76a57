"""`claudemesh send`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson

from claudemesh.cli import answers
from claudemesh.cli.message_text import TextCommand, message_text, text_argument
from claudemesh.cli.options import Duration, complete_members, json_option, mesh_option
from claudemesh.cli.progress import RECEIPTS, WAITED_FOR, print_progress, wait_for_state
from claudemesh.cli.sent import print_sent
from claudemesh.client.local import LocalClient
from claudemesh.client.long_text import post_text


@click.command(cls=TextCommand)
@click.argument("to", required=False, shell_complete=complete_members)
@text_argument
@click.option("--to", "recipient", metavar="NAME", help="The same as TO.", shell_complete=complete_members)
@click.option("--priority", type=click.Choice(["now", "next", "low"]), help="Urgency. Default: next.")
@click.option("--meta", metavar="JSON", help="A JSON object that travels with the message.")
@click.option("--reply-to", metavar="ID", help="The broker_message_id of the message that this one answers.")
@click.option(
    "--mention",
    "mentions",
    multiple=True,
    metavar="NAME",
    help="Name or key of a member to mention. May be repeated.",
)
@click.option(
    "--id",
    "client_message_id",
    metavar="ID",
    help="Your own client_message_id. Repeated sends with the same id arrive once.",
)
@click.option(
    "--wait",
    type=click.IntRange(0, 30000),
    metavar="MS",
    help="Wait up to this many milliseconds for the broker to accept the message.",
)
@click.option(
    "--wait-for",
    "state",
    type=click.Choice(WAITED_FOR),
    help="Wait until the message has come so far. From delivered on, its recipient is asked for a receipt.",
)
@click.option(
    "--timeout",
    type=Duration(),
    metavar="DURATION",
    help="With --wait-for: time limit, such as 30s or 10m. Default: 60s.",
)
@click.option("--lines", is_flag=True, help="Send each line of standard input as a message.")
@click.option(
    "--id-prefix",
    metavar="PREFIX",
    help="With --lines: line N has the id PREFIX-N, and arrives once however often the command runs.",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "continue"]),
    help="With --lines: what a line that is refused does. Default: stop.",
)
@mesh_option
@json_option
@answers.others("With --lines: lines, accepted, repeated, failed, refusals and id_prefix instead of the ids.")
@answers.exits({75: "With --wait-for: the message has not come so far in time."})
@answers.action(**{**answers.SENT, "client_message_id": "string*", "state": "string*", "detail": "string*"})
def send(
    to: str | None,
    text: str | None,
    file: Path | None,
    allow_empty: bool,
    recipient: str | None,
    priority: str | None,
    meta: str | None,
    reply_to: str | None,
    mentions: tuple[str, ...],
    client_message_id: str | None,
    wait: int | None,
    state: str | None,
    timeout: int | None,
    lines: bool,
    id_prefix: str | None,
    on_error: str | None,
    mesh: str | None,
    as_json: bool,
) -> int:
    """Send a message to a member, a topic or a queue.

    TO is a member's name or public key, #TOPIC or queue:NAME. NAME/SESSION is a session of a member. The text
    is TEXT or the content of --file, or standard input when both are missing or TEXT is `-`. Exit code 0
    means that the message is on this host's disk and will be delivered.

    With --lines each line of standard input is a message, and empty lines are skipped. After a line that is
    refused, no further line is sent, except for those that were on their way already. With
    `--on-error continue` all others are sent. The exit code is that of the first refusal.

    With --wait-for the command ends when the broker has accepted the message, when it is delivered (on the
    recipient's disk), shown (a session or a person of the recipient has its text), or acked (they have
    acknowledged or answered it). After --timeout it says how far the message has come; the message stays
    on its way. A post to a topic has come as far as at any of its recipients.

    \b
    Examples:
      claudemesh send alice 'the build is green'
      git log -1 | claudemesh send alice -
      claudemesh send '#all' 'deploying' --priority now
      claudemesh send alice 'v42 is out' --id deploy-42
      claudemesh send --to alice --file notes.txt
      claudemesh send alice --lines --id-prefix import-7 <messages.txt
      claudemesh send alice -- -v
      claudemesh send ci-7 'redeploy?' --wait-for acked --timeout 10m
    """
    to, text = _destination(to, text, recipient)
    fields: dict[str, Any] = {
        "to": to,
        "priority": priority,
        "reply_to_id": reply_to,
        "mentions": list(mentions) or None,
        "meta": None if meta is None else _meta(meta),
    }
    given = {name: value for name, value in fields.items() if value is not None}
    if lines:
        texts = {"TEXT": text, "--file": file}
        surplus = {name: value for name, value in texts.items() if value is not None and str(value) != "-"}
        _refuse_beside_lines({**surplus, "--id": client_message_id, "--wait": wait, "--wait-for": state})
        # Imported here: only --lines needs it.
        from claudemesh.cli.send_lines import send_lines

        return send_lines(LocalClient(mesh), given, id_prefix, on_error != "continue", as_json)
    if id_prefix is not None or on_error is not None:
        raise click.UsageError("--id-prefix and --on-error go with --lines.")
    if timeout is not None and state is None:
        raise click.UsageError("--timeout goes with --wait-for.")
    if state in RECEIPTS:
        given["receipt"] = state
    elif state == "notified":
        given["receipt"] = "shown"
    given["message"] = message_text(text, file, allow_empty=allow_empty)
    if client_message_id is not None:
        given["client_message_id"] = client_message_id
    path = "/v1/send" if wait is None else f"/v1/send?wait_ms={wait}"
    client = LocalClient(mesh)
    answer = post_text(client, path, given)
    if state is None:
        return print_sent(answer, mesh, as_json=as_json)
    found = wait_for_state(client, answer["client_message_id"], state, 60 if timeout is None else timeout)
    return print_progress(answer, found, as_json=as_json)


def _refuse_beside_lines(given: dict[str, object]) -> None:
    surplus = [name for name, value in given.items() if value is not None]
    if surplus:
        raise click.UsageError(
            f"--lines takes its texts from standard input, so leave out {' and '.join(surplus)}. "
            "Nothing was sent."
        )


def _destination(to: str | None, text: str | None, recipient: str | None) -> tuple[str, str | None]:
    """Return destination and text. With --to the first argument is the text."""
    if recipient is not None:
        if text is not None:
            raise click.UsageError(
                "Give the destination once: as TO or with --to. A text of several words goes in quotation "
                "marks. Nothing was sent."
            )
        return recipient, to
    if to is None:
        raise click.UsageError("Missing argument 'TO'.")
    return to, text


def _meta(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise click.UsageError(
            f"--meta is not JSON: see column {error.colno} of line {error.lineno}. Nothing was sent."
        ) from error
