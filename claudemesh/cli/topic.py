"""`claudemesh topic`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.message_text import TextCommand, message_text, text_argument
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.cli.output import Column
from claudemesh.cli.sent import print_sent
from claudemesh.cli.topic_admin import delete, rekey, show
from claudemesh.client.local import LocalClient
from claudemesh.client.long_text import post_text
from claudemesh.runtime.destinations import spell_destination


@click.group(cls=CommandGroup)
def topic() -> None:
    """Create, list, use and delete topics and queues.

    A message to a topic reaches every subscriber. A message to a queue reaches one of its subscribers.

    \b
    Examples:
      claudemesh topic create deploys
      claudemesh topic post deploys 'v42 is out'
      claudemesh topic create queue:builds
      claudemesh topic post queue:builds 'build v42'
    """


topic.add_command(show)
topic.add_command(delete)
topic.add_command(rekey)


@topic.command()
@click.argument("name")
@click.option(
    "--mode", type=click.Choice(["topic", "queue"]), help="Default: queue for queue:NAME, else topic."
)
@mesh_option
@json_option
@answers.action("TopicCreated")
def create(name: str, mode: str | None, mesh: str | None, as_json: bool) -> int:
    """Create a topic or a queue. No member is subscribed automatically, not even you.

    NAME is the name of a topic, with or without `#` in front, or queue:NAME.

    \b
    Examples:
      claudemesh topic create deploys
      claudemesh topic create queue:builds
    """
    body = {"topic": name} | ({} if mode is None else {"mode": mode})
    return _change("create", body, mesh, as_json, "created")


@topic.command()
@click.argument("name")
@mesh_option
@json_option
@answers.action("TopicSubscribed")
def subscribe(name: str, mesh: str | None, as_json: bool) -> int:
    """Subscribe to a topic or a queue. This host receives the messages that are posted from now on.

    NAME is the name of a topic or a queue.

    \b
    Examples:
      claudemesh topic subscribe deploys
    """
    return _change("subscribe", {"topic": name}, mesh, as_json, "subscribed to")


@topic.command()
@click.argument("name")
@mesh_option
@json_option
@answers.action("TopicSubscribed")
def unsubscribe(name: str, mesh: str | None, as_json: bool) -> int:
    """Remove the subscription to a topic or a queue.

    NAME is the name of a topic or a queue.

    \b
    Examples:
      claudemesh topic unsubscribe deploys
    """
    return _change("unsubscribe", {"topic": name}, mesh, as_json, "unsubscribed from")


@topic.command(cls=TextCommand)
@click.argument("name")
@text_argument
@click.option(
    "--id",
    "client_message_id",
    metavar="ID",
    help="Your own client_message_id. Repeated posts with the same id arrive once.",
)
@mesh_option
@json_option
@answers.action(**answers.SENT)
def post(
    name: str,
    text: str | None,
    file: Path | None,
    allow_empty: bool,
    client_message_id: str | None,
    mesh: str | None,
    as_json: bool,
) -> int:
    """Post a message to a topic or a queue.

    NAME is the name of a topic or a queue. The text is TEXT or the content of --file, or standard
    input when both are missing or TEXT is `-`.

    \b
    Examples:
      claudemesh topic post deploys 'v42 is out'
      git log -1 | claudemesh topic post deploys -
    """
    body = {"topic": name, "message": message_text(text, file, allow_empty=allow_empty)}
    if client_message_id is not None:
        body["client_message_id"] = client_message_id
    answer = post_text(LocalClient(mesh), "/v1/topic/post", body)
    return print_sent(answer, mesh, as_json=as_json)


@topic.command("list")
@mesh_option
@json_option
@answers.items("TopicItem")
def list_topics(mesh: str | None, as_json: bool) -> None:
    """List the topics and queues of the mesh.

    \b
    Examples:
      claudemesh topic list
      claudemesh topic list --json | jq -r '.items[].topic'
    """
    items = LocalClient(mesh).items("/v1/topic/list")
    if as_json:
        output.print_items(items)
        return
    output.table(
        (
            "topic",
            "mode",
            "subscribed",
            Column("subscribers", "number"),
            "key",
            "created_at",
        ),
        [
            [
                *(item[name] for name in ("topic", "mode", "subscribed", "subscribers")),
                _key_state(item),
                item["created_at"],
            ]
            for item in items
        ],
    )


def _key_state(item: Mapping[str, Any]) -> str:
    """Return whether this host can read the topic. Before the first post it has no key."""
    if item["key_epoch"] is None:
        return "none yet"
    return "here" if item["have_key"] else "waiting" if item["subscribed"] else "not here"


def _change(action: str, body: dict[str, str], mesh: str | None, as_json: bool, word: str) -> int:
    answer = LocalClient(mesh).post(f"/v1/topic/{action}", body)
    # An answer about a subscription does not tell the mode.
    shown = spell_destination(answer["mode"], answer["topic"]) if "mode" in answer else body["topic"]
    return output.print_answer(as_json, answer, f"{word} {shown}")
