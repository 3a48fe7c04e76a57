"""`claudemesh topic show`, `delete` and `rekey`."""

from __future__ import annotations

import sys
from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.confirming import no_terminal
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.errors import ApiError
from claudemesh.client.local import LocalClient
from claudemesh.runtime.destinations import spell_destination

_NOT_FOUND = 404


@click.command()
@click.argument("name")
@mesh_option
@json_option
@answers.one("TopicItem")
def show(name: str, mesh: str | None, as_json: bool) -> int:
    """Show a topic or a queue.

    NAME is the name of a topic or a queue.

    \b
    Examples:
      claudemesh topic show deploys
    """
    item = _find(LocalClient(mesh), name)
    if as_json:
        output.print_json(item)
        return 0
    output.fields(
        {
            "send to": spell_destination(item["mode"], item["topic"]),
            "mode": item["mode"],
            "subscribers": item["subscribers"],
            "subscribed": "yes" if item["subscribed"] else "no",
            "key epoch": item["key_epoch"] or "none yet",
            "key here": "yes" if item["have_key"] else "no",
            "without key": item["members_without_key"] or 0,
            "created": output.moment(item["created_at"], never="unknown"),
        }
    )
    return 0


@click.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Drop the messages of a queue that no subscriber has taken.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@mesh_option
@json_option
@answers.action("TopicDeleted", status="string")
def delete(name: str, force: bool, yes: bool, mesh: str | None, as_json: bool) -> int:
    """Delete a topic or a queue, for every member.

    Its creator, owners and admins may do that. All subscriptions end. Posts that were accepted before are
    still delivered. A queue with messages that no subscriber has acknowledged is kept, unless --force drops
    them.

    NAME is the name of a topic or a queue.

    \b
    Examples:
      claudemesh topic delete deploys
      claudemesh topic delete queue:builds --force --yes
    """
    if not yes and not sys.stdin.isatty():
        raise no_terminal("delete")
    if not yes and not click.confirm(f"Delete {output.safe(name)} for every member of the mesh?", err=True):
        raise click.exceptions.Abort
    client = LocalClient(mesh)
    try:
        answer = client.post("/v1/topic/delete", {"topic": name, "force": force})
    except ApiError as error:
        if error.code != "queue_not_empty":
            raise
        text = error.message.replace("with force", "with --force")
        again = f"claudemesh topic delete {name} --force"
        raise ApiError(error.status, {**error.body, "message": text, "next": again}) from error
    dropped = f", and dropped {answer['dropped']} messages" if answer["dropped"] else ""
    shown = spell_destination(answer["mode"], answer["topic"])
    return output.print_answer(as_json, {"status": "deleted", **answer}, f"deleted {shown}{dropped}")


@click.command()
@click.argument("name")
@mesh_option
@json_option
@answers.action("TopicRekeyed", status="string")
def rekey(name: str, mesh: str | None, as_json: bool) -> int:
    """Give a topic or a queue a new key.

    A connected member that holds the present key, or the next one that posts, makes it. Messages that are
    sent from then on cannot be read with the older key. That happens by itself when a subscriber leaves or
    is revoked, and every 90 days.

    NAME is the name of a topic or a queue.

    \b
    Examples:
      claudemesh topic rekey deploys
    """
    answer = LocalClient(mesh).post("/v1/topic/rekey", {"topic": name})
    shown = output.safe(name)
    if answer["rekey_wanted"]:
        return output.print_answer(as_json, {"status": "wanted", **answer}, f"{shown} gets a new key")
    text = f"{shown} has no key yet: the first post makes one"
    return output.print_answer(as_json, {"status": "no_key_yet", **answer}, text)


def _find(client: LocalClient, name: str) -> dict[str, Any]:
    """Return a topic of the list. `ApiError` with similar names when there is none."""
    wanted = name.removeprefix("#").removeprefix("queue:")
    items = {item["topic"]: item for item in client.items("/v1/topic/list")}
    if wanted in items:
        return items[wanted]
    # Imported here: only a wrong name needs it.
    from difflib import get_close_matches

    near = get_close_matches(wanted, items)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    text = f"There is no topic or queue {wanted!r} in this mesh.{hint}"
    body = {"error": "topic_not_found", "message": text, "near": near, "next": "claudemesh topic list"}
    raise ApiError(_NOT_FOUND, body)
