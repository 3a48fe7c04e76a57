"""`claudemesh topic …`."""

from __future__ import annotations

import click

from claudemesh.cli import output
from claudemesh.cli.message_text import message_text
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.local import LocalClient


@click.group()
def topic() -> None:
    """Topics: what is posted reaches everybody who is subscribed; of a queue, one of them.

    \b
    claudemesh topic create deploys
    claudemesh topic post deploys 'v42 is out'
    claudemesh topic create queue:builds
    claudemesh topic post queue:builds 'build v42'
    """


@topic.command()
@click.argument("name")
@click.option("--mode", type=click.Choice(["topic", "queue"]), help="Default topic; queue for queue:NAME.")
@mesh_option
@json_option
def create(name: str, mode: str | None, mesh: str | None, as_json: bool) -> None:
    """Make a topic. Who wants its posts subscribes to it, its maker too."""
    body = {"topic": name} | ({} if mode is None else {"mode": mode})
    _change("create", body, mesh, as_json, "created")


@topic.command()
@click.argument("name")
@mesh_option
@json_option
def subscribe(name: str, mesh: str | None, as_json: bool) -> None:
    """Receive what is posted from now on."""
    _change("subscribe", {"topic": name}, mesh, as_json, "subscribed to")


@topic.command()
@click.argument("name")
@mesh_option
@json_option
def unsubscribe(name: str, mesh: str | None, as_json: bool) -> None:
    """Receive no more."""
    _change("unsubscribe", {"topic": name}, mesh, as_json, "unsubscribed from")


@topic.command()
@click.argument("name")
@click.argument("text", required=False)
@click.option("--id", "message_id", metavar="ID", help="Your own id; posting it again is free.")
@mesh_option
@json_option
def post(name: str, text: str | None, message_id: str | None, mesh: str | None, as_json: bool) -> None:
    """Post TEXT, or what comes on stdin."""
    body = {"topic": name, "message": message_text(text)}
    if message_id is not None:
        body["client_message_id"] = message_id
    answer = LocalClient(mesh).post("/v1/topic/post", body)
    if as_json:
        output.print_json(answer)
    else:
        output.say(f"{answer['status']} {answer['client_message_id']}")


@topic.command("list")
@mesh_option
@json_option
def list_topics(mesh: str | None, as_json: bool) -> None:
    """List the mesh's topics."""
    items = LocalClient(mesh).items("/v1/topic/list")
    if as_json:
        output.print_json({"items": items, "next": None})
        return
    output.table(
        ("topic", "mode", "subscribed", "subscribers", "sealed"),
        [
            (
                item["topic"],
                item["mode"],
                "yes" if item["subscribed"] else "no",
                item["subscribers"],
                "yes" if item["sealed"] else "no",
            )
            for item in items
        ],
    )


def _change(action: str, body: dict[str, str], mesh: str | None, as_json: bool, word: str) -> None:
    answer = LocalClient(mesh).post(f"/v1/topic/{action}", body)
    if as_json:
        output.print_json(answer)
    else:
        output.say(f"{word} {answer['topic']}")
