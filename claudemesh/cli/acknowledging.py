"""Acknowledgement of received messages: `inbox ack` and `inbox --mark-read`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from claudemesh.cli import answers, output
from claudemesh.cli.lookup import find_received
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient
from claudemesh.runtime.exits import USAGE, ExitWith

# As many ids as the daemon takes in one request.
_MOST_IDS = 500


@click.command()
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--all", "is_all", is_flag=True, help="Acknowledge every message that is in the inbox now.")
@mesh_option
@json_option
@answers.action(status="string", acknowledged="integer")
def ack(ids: tuple[str, ...], is_all: bool, mesh: str | None, as_json: bool) -> int:
    """Acknowledge messages, so that they are no longer unread.

    ID is the number that `claudemesh inbox` shows, or any id of the message. A message that cannot be
    decrypted yet is not acknowledged by --all. When an ID is unknown, no message is acknowledged.

    \b
    Examples:
      claudemesh inbox ack 17 18
      claudemesh inbox ack --all
    """
    if bool(ids) == is_all:
        raise click.UsageError("Give the IDs of messages, or --all.")
    client = LocalClient(mesh)
    marked = _acknowledge_unread(client) if is_all else mark_read(client, [_find(client, one) for one in ids])
    answer = {"status": "acknowledged", "acknowledged": marked}
    return output.print_answer(as_json, answer, f"acknowledged {marked} message{'' if marked == 1 else 's'}")


def mark_read(client: LocalClient, ids: Sequence[str]) -> int:
    """Acknowledge messages by their `id`, and return the number of known ones."""
    marked = 0
    for start in range(0, len(ids), _MOST_IDS):
        body = {"ids": ids[start : start + _MOST_IDS], "as": "acked"}
        marked += client.post("/v1/inbox/ack", body)["marked"]
    return marked


def _find(client: LocalClient, id_or_seq: str) -> str:
    item = find_received(client, id_or_seq)
    if item is None:
        text = f"The inbox holds no message {id_or_seq}. No message was acknowledged."
        raise ExitWith(USAGE, "not_found", text, next="claudemesh inbox --unread")
    found: str = item["id"]
    return found


def _acknowledge_unread(client: LocalClient) -> int:
    """Acknowledge all unread messages up to the newest one of this moment."""
    newest = client.get("/v1/inbox", order="desc", limit=1)["items"]
    after, marked = None, 0
    while newest:
        page = client.get("/v1/inbox", unread="true", after=after, limit=_MOST_IDS)
        items = [item for item in page["items"] if item["seq"] <= newest[0]["seq"]]
        marked += mark_read(client, [item["id"] for item in items if item["body"] is not None])
        after = page["next"]
        if after is None or len(items) < len(page["items"]):
            break
    return marked
