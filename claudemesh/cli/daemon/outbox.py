"""`claudemesh outbox`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import click
import orjson

from claudemesh.cli import answers, output
from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.cli.output import Column
from claudemesh.client.local import LocalClient
from claudemesh.runtime.destinations import spell_destination

_COLUMNS = (
    "id",
    "to",
    "status",
    Column("accepted", "age"),
    Column("attempts", "number"),
    Column("error", "body"),
)
# Causes of a wait, as the column of errors has them.
_WAITS = {"topic_key": "waits for the key of its topic"}


@click.group(cls=CommandGroup, invoke_without_command=True)
@click.option("--failed", is_flag=True, help="Only dead sends.")
@mesh_option
@json_option
@click.pass_context
@answers.items("OutboxItem")
def outbox(context: click.Context, failed: bool, mesh: str | None, as_json: bool) -> None:
    """List, requeue, drop and prune sends. Without a command, the newest sends are listed.

    A send that was given up is dead. It stays in the outbox until it is requeued or dropped.

    \b
    Examples:
      claudemesh outbox --failed
      claudemesh outbox inspect deploy-42
      claudemesh outbox requeue deploy-42
    """
    if context.invoked_subcommand is None:
        context.invoke(list_rows, failed=failed, status=None, limit=100, mesh=mesh, as_json=as_json)


@outbox.command("list")
@click.option("--failed", is_flag=True, help="Only dead sends.")
@click.option(
    "--status",
    type=click.Choice(["pending", "inflight", "done", "dead", "aborted"]),
    help="Only sends of this status.",
)
@click.option(
    "-n", "--limit", type=click.IntRange(1, 500), default=100, show_default=True, help="Number of sends."
)
@mesh_option
@json_option
@answers.items("OutboxItem")
def list_rows(failed: bool, status: str | None, limit: int, mesh: str | None, as_json: bool) -> None:
    """List the newest sends. The newest one is the last.

    \b
    Examples:
      claudemesh outbox list --failed
      claudemesh outbox list --status pending -n 500
    """
    client = LocalClient(mesh)
    page = client.get("/v1/outbox", status="dead" if failed else status, order="desc", limit=limit)
    rows = page["items"][::-1]
    if as_json:
        output.print_items(rows, page["next"])
        return
    names = {peer["pubkey"]: peer["name"] for peer in client.items("/v1/peers")}
    output.table(_COLUMNS, [_cells(row, names) for row in rows])
    if page["next"]:
        output.note(
            f"There are earlier sends than these {len(rows)}. Use -n to show more, --status to show fewer."
        )


def _cells(row: Mapping[str, Any], names: Mapping[str, str]) -> tuple[object, ...]:
    # A pruned send has no destination.
    ref = row.get("destination_ref", "")
    to = spell_destination(row.get("destination_kind", ""), names.get(ref, ref))
    return (
        row["client_message_id"],
        to,
        row["status"],
        row["enqueued_at"],
        row["attempts"],
        row["last_error"] or _WAITS.get(str(row.get("waiting_for"))),
    )


@outbox.command()
@click.argument("row_id", metavar="ID")
@mesh_option
@json_option
@answers.one("OutboxRow")
def inspect(row_id: str, mesh: str | None, as_json: bool) -> None:
    """Show a send, and the sends that superseded it. ID is its id or client_message_id.

    \b
    Examples:
      claudemesh outbox inspect deploy-42
    """
    row = LocalClient(mesh).get(f"/v1/outbox/{_segment(row_id)}")
    if as_json:
        output.print_json(row)
        return
    chain = row.pop("chain")
    output.fields({name: value for name, value in row.items() if value is not None})
    for successor in chain:
        output.say(f"superseded by {successor['id']} ({successor['status']})")


@outbox.command()
@click.argument("row_id", required=False, metavar="ID")
@click.option("--id", "released_id", hidden=True, help="The ID, as version 0.1.0 takes it.")
@click.option(
    "--new-client-id",
    metavar="auto|ID",
    default="auto",
    show_default=True,
    help="The new client_message_id. `auto` makes one.",
)
@click.option(
    "--patch-payload", type=click.File("rb"), metavar="FILE", help="JSON object with the fields to change."
)
@mesh_option
@json_option
@answers.action("Requeued")
def requeue(
    row_id: str | None,
    released_id: str | None,
    new_client_id: str,
    patch_payload: Any,
    mesh: str | None,
    as_json: bool,
) -> int:
    """Send the message of a dead or pending send again, under a new id.

    ID is the id or client_message_id of the send. The old send stays in the outbox as aborted. FILE of
    --patch-payload holds a JSON object with any of the fields to, message, meta, priority, reply_to_id and
    mentions.

    \b
    Examples:
      claudemesh outbox requeue deploy-42
      claudemesh outbox requeue deploy-42 --patch-payload patch.json
    """
    chosen = row_id or released_id
    if chosen is None or (row_id and released_id):
        raise click.UsageError("Give the ID of one send.")
    body: dict[str, Any] = {"new_client_message_id": new_client_id}
    if patch_payload is not None:
        try:
            body["patch"] = orjson.loads(patch_payload.read())
        except orjson.JSONDecodeError as error:
            raise click.UsageError(
                f"--patch-payload is not JSON: see column {error.colno} of line {error.lineno}."
            ) from error
    answer = LocalClient(mesh).post(f"/v1/outbox/{_segment(chosen)}/requeue", body)
    return output.print_answer(as_json, answer, f"{answer['status']} {answer['client_message_id']}")


@outbox.command()
@click.argument("row_id", metavar="ID")
@mesh_option
@json_option
@answers.action("Dropped")
def drop(row_id: str, mesh: str | None, as_json: bool) -> int:
    """Drop a dead or pending send. Its client_message_id is never used again.

    \b
    Examples:
      claudemesh outbox drop deploy-42
    """
    answer = LocalClient(mesh).post(f"/v1/outbox/{_segment(row_id)}/drop")
    return output.print_answer(as_json, answer, f"dropped {answer['id']}")


@outbox.command()
@click.option("--confirm", is_flag=True, help="Confirm that payloads are removed.")
@mesh_option
@json_option
@answers.action("Pruned")
def prune(confirm: bool, mesh: str | None, as_json: bool) -> int:
    """Remove the payloads of finished sends, to free disk space.

    Retries of these sends are answered as before. Without this command, payloads of done sends are kept for
    72 hours, to be offered again when the broker is restored from an older backup.

    \b
    Examples:
      claudemesh outbox prune --confirm
    """
    if not confirm:
        raise click.UsageError("Removed payloads cannot be restored. Add --confirm to remove them.")
    answer = LocalClient(mesh).post("/v1/outbox/prune")
    text = f"pruned {answer['pruned']} sends, {answer['freed_bytes']} bytes"
    return output.print_answer(as_json, answer, text)


def _segment(row_id: str) -> str:
    return quote(row_id, safe="")
