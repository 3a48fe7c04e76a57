"""`claudemesh inbox`."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.display import is_terminal
from claudemesh.cli.inbox_view import MessageList, note_empty
from claudemesh.cli.lazy_group import LazyGroup
from claudemesh.cli.message_filter import MessageFilter
from claudemesh.cli.options import Moment, json_option, mesh_option
from claudemesh.cli.terminal_session import TerminalSession
from claudemesh.client.local import LocalClient

_PAGE = 500

COMMANDS = {
    "Commands": {
        "show": (
            "inbox_show",
            "show",
            "Show a message in full, with the messages that it answers and that answer it.",
        ),
        "ack": ("acknowledging", "ack", "Acknowledge messages, so that they are no longer unread."),
    },
}


@click.group(cls=LazyGroup, table=COMMANDS, invoke_without_command=True, subcommand_metavar="[COMMAND]")
@click.option("-f", "--follow", is_flag=True, help="Continue to print messages as they arrive.")
@click.option("--unread", is_flag=True, help="Only messages that are not acknowledged.")
@click.option("--mentions", is_flag=True, help="Only messages that mention this member.")
@click.option("--from", "sender", metavar="NAME", help="Only messages from this member.")
@click.option("--topic", metavar="NAME", help="Only messages of this topic or queue.")
@click.option(
    "--grep",
    "text",
    metavar="TEXT",
    help="Only messages whose text contains TEXT, in any case. TEXT is no pattern.",
)
@click.option(
    "--since",
    type=Moment(),
    metavar="TIME",
    help="Only messages received since this time, such as 1h or 2026-01-31T12:00:00Z.",
)
@click.option("--mark-read", is_flag=True, help="Acknowledge the messages after they are printed.")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 500), default=100, show_default=True, help="Number of messages."
)
@mesh_option
@json_option
@click.pass_context
@answers.others("With --follow, each message is an object on a line of its own.")
@answers.items("InboxItem")
def inbox(
    ctx: click.Context,
    follow: bool,
    unread: bool,
    mentions: bool,
    sender: str | None,
    topic: str | None,
    text: str | None,
    since: str | None,
    mark_read: bool,
    limit: int,
    mesh: str | None,
    as_json: bool,
) -> None:
    """Show the newest received messages.

    The newest message is the last one. A message that a terminal shows counts as shown, which its sender may
    have asked to be told; one for a session of this host does not. It is not acknowledged, unless --mark-read
    is given. The number in front of a message is the ID for `claudemesh reply`, `claudemesh inbox show` and
    `claudemesh inbox ack`. The column RE has the number of the message that a reply answers, or `you` when
    it answers a send of this host. A terminal shows the beginning of each text.

    \b
    Examples:
      claudemesh inbox -n 10
      claudemesh inbox --unread --from alice --mark-read
      claudemesh inbox --since 1h --grep deploy
      claudemesh inbox -f --json | jq .body
    """
    if ctx.invoked_subcommand is not None:
        return
    client = LocalClient(mesh)
    wanted = MessageFilter(sender=sender, topic=topic, text=text, mentions=mentions)
    messages = MessageList(client, as_json=as_json, is_followed=follow)
    # The position is taken before the page, so that no message falls between the page and the stream. A
    # message that is in both is shown once.
    newest = _get(client, follow, limit=1)["items"] if follow else []
    query = {"topic": topic, "from_": sender, "since": since, "unread": "true" if unread else None}
    query["mentioned"] = "true" if mentions else None
    items, following_page = _newest(client, follow, wanted, limit, query)
    if as_json and not follow:
        output.print_items(items, following_page)
        _acknowledge(client, items, mark_read)
        return
    if following_page:
        output.note(f"There are earlier messages than these {len(items)}. Use -n to show more.")
    if items or follow or not is_terminal():
        messages.add(items)
    session = TerminalSession(client)
    session.saw(items)
    _acknowledge(client, items, mark_read)
    if follow:
        # Both are compared: a message that is decrypted later keeps its id and gets a new seq.
        shown = {(item["id"], item["seq"]) for item in items}
        messages_seen = (messages, session)
        _follow(client, newest[0]["seq"] if newest else 0, wanted, shown, messages_seen, mark_read)
    elif not items and is_terminal():
        if text is not None or any(query.values()):
            output.note("No message matches.")
        else:
            note_empty(client)


def _newest(
    client: LocalClient, follow: bool, wanted: MessageFilter, limit: int, query: dict[str, str | None]
) -> tuple[list[dict[str, Any]], str | None]:
    """Return the newest messages that are wanted, the newest one last, and the cursor of earlier ones."""
    found: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        # The daemon does not search in texts.
        asked = limit if wanted.text is None else _PAGE
        page = _get(client, follow, limit=asked, after=after, **query)
        matching = [item for item in page["items"] if wanted.holds(item)]
        found += matching
        after = page["next"]
        if len(found) > limit or (len(found) == limit and after is not None):
            found = found[:limit]
            return found[::-1], str(found[-1]["seq"])
        if after is None or wanted.text is None:
            return found[::-1], after


def _acknowledge(client: LocalClient, items: Sequence[dict[str, Any]], mark_read: bool) -> None:
    if not mark_read:
        return
    # Imported here: only --mark-read needs it.
    from claudemesh.cli.acknowledging import mark_read as mark

    mark(client, [item["id"] for item in items if item["body"] is not None and item["acked_at"] is None])


def _get(client: LocalClient, follow: bool, **query: Any) -> dict[str, Any]:
    """Read the newest messages. With `follow`, a daemon that is restarting is waited for."""

    def ask() -> dict[str, Any]:
        return client.get("/v1/inbox", order="desc", **query)

    if not follow:
        return ask()
    # Imported here: only --follow needs it.
    from claudemesh.cli.follower import RESTART_S, retry_over_restart

    return retry_over_restart(ask, time.monotonic() + RESTART_S)


def _follow(
    client: LocalClient,
    after: int,
    wanted: MessageFilter,
    shown: Collection[tuple[str, int]],
    seen: tuple[MessageList, TerminalSession],
    mark_read: bool,
) -> None:
    messages, session = seen
    # Imported here: only --follow needs it.
    from claudemesh.cli.follower import following

    with following(client) as follow:
        for message in follow.daemon.messages(after):
            item = message.data
            if wanted.holds(item) and (item["id"], item["seq"]) not in shown:
                messages.add([item])
                session.saw([item])
                _acknowledge(client, [item], mark_read)
