"""`claudemesh mesh list` and `claudemesh mesh use`."""

from __future__ import annotations

from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.options import complete_meshes, json_option
from claudemesh.client import current_mesh
from claudemesh.client.errors import ClientError, WrongHome
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import choose_mesh, meshes
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.exits import ExitWith


@click.command("list")
@json_option
@answers.items(mesh="string", current="boolean", name="string?", broker_url="string?", daemon="string")
def list_meshes(as_json: bool) -> None:
    """List the meshes of this host. The current one is used when a command names none.

    \b
    Examples:
      claudemesh mesh list
    """
    current = _current()
    found = [_look_at(slug, slug == current) for slug in meshes()]
    if as_json:
        output.print_items(found)
        return
    output.table(
        ("mesh", "current", "name", "broker", "daemon"),
        [
            (
                item["mesh"],
                item["current"],
                item["name"] or "?",
                item["broker_url"] or "?",
                item["daemon"],
            )
            for item in found
        ],
    )


@click.command()
@click.argument("slug", shell_complete=complete_meshes)
@json_option
@answers.action(status="string", mesh="string")
def use(slug: str, as_json: bool) -> int:
    """Choose the mesh of all commands that name none.

    SLUG is a mesh that this host has joined. --mesh and CLAUDEMESH_MESH have precedence over the choice.

    \b
    Examples:
      claudemesh mesh use team
    """
    current_mesh.choose(choose_mesh(slug))
    answer = {"status": "chosen", "mesh": slug}
    output.print_answer(as_json, answer, f"commands use mesh {slug}")
    overruling = current_mesh.from_environment()
    if overruling not in (None, slug) and not as_json:
        output.note(f"{current_mesh.VARIABLE} is {overruling} here and has precedence.")
    return 0


def _current() -> str | None:
    try:
        return choose_mesh(None)
    except WrongHome:
        return None


def _look_at(slug: str, is_current: bool) -> dict[str, Any]:
    # Imported here: only this command reads the memberships.
    from claudemesh.home.membership import load_membership

    item: dict[str, Any] = {"mesh": slug, "current": is_current, "name": None, "broker_url": None}
    try:
        membership = load_membership(daemon_paths(slug).membership)
        item |= {"name": membership.name, "broker_url": membership.broker_url}
    except ExitWith:
        # `doctor` tells what is wrong with the file.
        pass
    return item | {"daemon": _daemon(slug)}


def _daemon(slug: str) -> str:
    try:
        return "up" if LocalClient(slug).is_running() else "down"
    except ClientError:
        return "unknown"
