"""`claudemesh daemon ps`."""

from __future__ import annotations

from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.daemon.control import valid_pid
from claudemesh.cli.options import json_option
from claudemesh.cli.output import Column
from claudemesh.client.errors import ClientError
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import meshes
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.files import UnsafeFile

_COLUMNS = ("mesh", "state", "name", "pid", "link", "waiting", "dead")
_TITLES = (*_COLUMNS[:5], Column("waiting", "number"), Column("dead", "number"))


@click.command()
@json_option
@answers.items(
    mesh="string",
    state="string",
    name="string?",
    pid="integer?",
    link="string?",
    waiting="integer?",
    dead="integer?",
)
def ps(as_json: bool) -> None:
    """List the daemons of this host, running or not.

    \b
    Examples:
      claudemesh daemon ps
    """
    found = [_look_at(slug) for slug in meshes()]
    if as_json:
        output.print_items(found)
        return
    output.table(_TITLES, [[daemon[name] for name in _COLUMNS] for daemon in found])


def _look_at(slug: str) -> dict[str, Any]:
    try:
        client = LocalClient(slug)
        health = client.get("/v1/health")
    except ClientError:
        unknown = dict.fromkeys(("pid", "link", "waiting", "dead"))
        return unknown | {"mesh": slug, "state": "down", "name": _own_name(slug)}
    return {
        "mesh": slug,
        "state": "up",
        "name": health["name"],
        "pid": valid_pid(client, health),
        "link": "up" if health["connected"] else "down",
        "waiting": health["queue_depth"] + health["inflight"],
        "dead": health["dead"],
    }


def _own_name(slug: str) -> str | None:
    # Imported here: a daemon that runs tells the name.
    from claudemesh.home.membership import load_membership

    try:
        return load_membership(daemon_paths(slug).membership).name
    except (ExitWith, UnsafeFile):
        return None
