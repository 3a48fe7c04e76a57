"""`claudemesh inbox`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import click

from claudemesh.cli import output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient
from claudemesh.runtime.destinations import spell_destination

_SEALED = "(encrypted for a key that is not on this host yet; the text is shown when the key arrives)"

Wanted: TypeAlias = Callable[[dict[str, Any]], bool]


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Continue to print messages as they arrive.")
@click.option("--unread", is_flag=True, help="Only messages that are not acknowledged.")
@click.option("--mentions", is_flag=True, help="Only messages that mention this member.")
@click.option("--from", "sender", metavar="NAME", help="Only messages from this member.")
@click.option("--topic", metavar="NAME", help="Only messages of this topic or queue.")
@click.option(
    "--since", metavar="TIME", help="Only messages received since this time, such as 2026-01-31T12:00:00Z."
)
@click.option(
    "-n", "--limit", type=click.IntRange(1, 500), default=100, show_default=True, help="Number of messages."
)
@mesh_option
@json_option
def inbox(
    follow: bool,
    unread: bool,
    mentions: bool,
    sender: str | None,
    topic: str | None,
    since: str | None,
    limit: int,
    mesh: str | None,
    as_json: bool,
) -> None:
    """Show the newest received messages.

    The newest message is the last one. Showing a message does not acknowledge it. The number in front of a
    message is the ID for `claudemesh reply`.

    \b
    Examples:
      claudemesh inbox -n 10
      claudemesh inbox --unread --from alice
      claudemesh inbox -f --json | jq .body
    """
    client = LocalClient(mesh)
    # The position is taken before the page, so that no message falls between the page and the stream. A
    # message that is in both is shown once.
    newest = _get(client, follow, limit=1)["items"] if follow else []
    query = {"topic": topic, "from_": sender, "since": since, "unread": "true" if unread else None}
    query["mentioned"] = "true" if mentions else None
    page = _get(client, follow, limit=limit, **query)
    items = page["items"][::-1]
    if as_json and not follow:
        output.print_json({"items": items, "next": page["next"]})
        return
    if page["next"]:
        output.note(f"There are earlier messages than these {len(items)}. Use -n to show more.")
    for item in items:
        _show(item, as_json)
    if follow:
        # Both are compared: a message that is decrypted later keeps its id and gets a new seq.
        shown = {(item["id"], item["seq"]) for item in items}
        is_wanted = _filter(topic, sender, mentions, shown)
        _follow(client, newest[0]["seq"] if newest else 0, is_wanted, as_json)
    elif not items and sys.stdout.isatty():
        output.note("No message matches." if any(query.values()) else "The inbox is empty.")


def _get(client: LocalClient, follow: bool, **query: Any) -> dict[str, Any]:
    """Read the newest messages. With `follow`, a daemon that is restarting is waited for."""

    def ask() -> dict[str, Any]:
        return client.get("/v1/inbox", order="desc", **query)

    if not follow:
        return ask()
    # Imported here: only --follow needs it.
    from claudemesh.cli.follower import RESTART_S, retry_over_restart

    return retry_over_restart(ask, time.monotonic() + RESTART_S)


def _filter(
    topic: str | None, sender: str | None, mentions: bool, shown: Collection[tuple[str, int]]
) -> Wanted:
    name = None if topic is None else topic.removeprefix("#").removeprefix("queue:")
    of = None if sender is None else sender.removeprefix("@").lower()

    def is_wanted(item: dict[str, Any]) -> bool:
        senders = (None, item["sender_name"].lower(), item["sender_pubkey"])
        if mentions and not item["mentioned"]:
            return False
        return name in (None, item["topic"]) and of in senders and (item["id"], item["seq"]) not in shown

    return is_wanted


def _follow(client: LocalClient, after: int, is_wanted: Wanted, as_json: bool) -> None:
    # Imported here: only --follow needs it.
    from claudemesh.cli.follower import following

    with following(client) as follow:
        for message in follow.daemon.messages(after):
            if is_wanted(message.data):
                _show(message.data, as_json)


def _show(item: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(item)
        return
    where = f" {spell_destination(item['kind'], item['topic'])}" if item["topic"] else ""
    head = f"{item['seq']:>4}  {item['received_at']}  {output.safe(item['sender_name'])}{where}"
    if item["mentioned"]:
        head += "  (mentions you)"
    body = _SEALED if item["body"] is None else item["body"]
    lines = output.safe_lines(body).split("\n")
    output.say("\n      ".join([f"{head}  {lines[0]}", *lines[1:]]))
