"""`claudemesh inbox`."""

from __future__ import annotations

import time
from typing import Any

import click

from claudemesh.cli import output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.errors import DaemonNotRunning
from claudemesh.client.local import LocalClient

_RETRY_S = 1.0


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as messages arrive.")
@click.option("--unread", is_flag=True, help="Only what nobody has acknowledged.")
@click.option("--from", "sender", metavar="NAME", help="Only from this member.")
@click.option("--topic", metavar="NAME", help="Only of this topic or queue.")
@click.option("--since", metavar="TIME", help="Only from this time on, as 2026-01-31T12:00:00Z.")
@click.option("--limit", type=click.IntRange(1, 500), default=100, show_default=True)
@mesh_option
@json_option
def inbox(
    follow: bool,
    unread: bool,
    sender: str | None,
    topic: str | None,
    since: str | None,
    limit: int,
    mesh: str | None,
    as_json: bool,
) -> None:
    """Show received messages, oldest first. Reading does not consume them.

    \b
    claudemesh inbox --unread
    claudemesh inbox -f --json | jq .body
    """
    client = LocalClient(mesh)
    query = {"topic": topic, "from_": sender, "since": since, "unread": "true" if unread else None}
    page = client.get("/v1/inbox", limit=limit, **query)
    if as_json and not follow:
        output.print_json(page)
        return
    for item in page["items"]:
        _show(item, as_json)
    if not follow:
        if page["next"]:
            output.note("There are more: narrow it down with --since, --from, --topic or --unread.")
        return
    while page["next"]:
        page = client.get("/v1/inbox", limit=limit, after=page["next"], **query)
        for item in page["items"]:
            _show(item, as_json)
    name = None if topic is None else topic.removeprefix("#").removeprefix("queue:")
    _follow(client, _last(client), name, sender, as_json)


def _last(client: LocalClient) -> int:
    """The newest message's seq: the stream goes on behind it."""
    after = 0
    while True:
        page = client.get("/v1/inbox", limit=500, after=after)
        if page["items"]:
            after = page["items"][-1]["seq"]
        if page["next"] is None:
            return after


def _follow(client: LocalClient, after: int, topic: str | None, sender: str | None, as_json: bool) -> None:
    while True:
        try:
            for event, item in client.stream(f"/v1/events?since={after}"):
                if event != "message":
                    continue
                after = item["seq"]
                if topic in (None, item["topic"]) and sender in (None, item["sender_name"]):
                    _show(item, as_json)
        except (DaemonNotRunning, OSError):
            # A daemon that restarts is followed again, from where we were.
            output.note("The daemon went away; waiting for it.")
        time.sleep(_RETRY_S)


def _show(item: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(item)
        return
    mark = "queue:" if item["kind"] == "queue" else "#"
    where = f" {mark}{item['topic']}" if item["topic"] else ""
    body = "(sealed with a key that is not here yet)" if item["body"] is None else item["body"]
    # A text from stdin ends with a newline that nobody wants to see.
    lines = [output.safe(line) for line in body.removesuffix("\n").split("\n")]
    output.say(f"{item['received_at']}  {output.safe(item['sender_name'])}{where}  {lines[0]}")
    for line in lines[1:]:
        output.say(f"    {line}")
