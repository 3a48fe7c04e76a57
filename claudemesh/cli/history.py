"""`claudemesh history`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.display import is_terminal
from claudemesh.cli.inbox_view import UNREADABLE, text_in_list
from claudemesh.cli.options import complete_members, json_option, mesh_option
from claudemesh.cli.output import Column, Listing
from claudemesh.client.local import LocalClient
from claudemesh.runtime.destinations import spell_destination
from claudemesh.runtime.exits import USAGE, ExitWith

_PAGE = 500
# The beginning of a key, shown for a member that this host does not know.
_KEY_CHARACTERS = 16
_SEALED = "(encrypted for a key that is not on this host)"


@click.command()
@click.option("--topic", metavar="NAME", help="Only messages of this topic, or of queue:NAME.")
@click.option(
    "--with",
    "member",
    metavar="NAME",
    shell_complete=complete_members,
    help="Only direct messages with this member, in both directions.",
)
@click.option(
    "-n", "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Number of messages."
)
@mesh_option
@json_option
@answers.beside_items(pruned_before="integer", dropped="integer")
@answers.items("HistoryItem")
def history(topic: str | None, member: str | None, limit: int, mesh: str | None, as_json: bool) -> None:
    """Show messages that the broker keeps, received and sent.

    The newest message is the last one. These are direct messages to and from this member, messages that it
    took from queues, and posts to topics while it was subscribed. The broker keeps them for the retention of
    the mesh. Messages that are not genuine are left out and counted.

    \b
    Examples:
      claudemesh history
      claudemesh history --with alice -n 10
      claudemesh history --topic deploys --json
    """
    if topic is not None and member is not None:
        raise ExitWith(USAGE, "usage", "Give --topic or --with, not both.")
    client = LocalClient(mesh)
    items, following, beside = _newest(client, {"topic": topic, "with_": member}, limit)
    if as_json:
        output.print_items(items, following, **beside)
        return
    if following:
        output.note(f"There are earlier messages than these {len(items)}. Use -n to show more.")
    if beside["dropped"]:
        output.note(f"{beside['dropped']} messages of the broker are not genuine. They are left out.")
    if items or not is_terminal():
        listing = Listing((Column("from"), "to", Column("sent", "age"), Column("message", "body")))
        listing.add([_row(item) for item in items])
    else:
        output.note("The broker keeps no such message.")


def _newest(
    client: LocalClient, query: Mapping[str, str | None], limit: int
) -> tuple[list[dict[str, Any]], str | None, dict[str, int]]:
    """Return the newest messages, the newest one last, a cursor of earlier ones, and fields beside them."""
    found: list[dict[str, Any]] = []
    before: str | None = None
    dropped = 0
    while True:
        asked = min(limit - len(found), _PAGE)
        page = client.get("/v1/history", before=before, limit=asked, **query)
        found = page["items"] + found
        dropped += page["dropped"]
        before = page["next"]
        if before is None or len(found) >= limit:
            return found, before, {"pruned_before": page["pruned_before"], "dropped": dropped}


def _recipient(item: Mapping[str, Any]) -> str:
    key = item.get("recipient_pubkey")
    return item["recipient_name"] or (f"{key[:_KEY_CHARACTERS]}…" if key else "you")


def _row(item: Mapping[str, Any]) -> tuple[object, ...]:
    to = spell_destination(item["kind"], item["topic"]) if item["topic"] else _recipient(item)
    missing = UNREADABLE if item.get("unreadable") else _SEALED
    body = missing if item["body"] is None else text_in_list(item)
    return ("you" if item["own"] else item["sender_name"], to, item["sent_at"], body)
