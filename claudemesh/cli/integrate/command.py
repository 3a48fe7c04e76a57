"""`claudemesh integrate`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

import click

from claudemesh.cli import answers, output
from claudemesh.cli.options import json_option
from claudemesh.client.errors import WrongUse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from claudemesh.cli.integrate.clients import Client
    from claudemesh.cli.integrate.files import Change
    from claudemesh.cli.integrate.places import Place, Scope

_NAMES = ("claude", "codex", "gemini", "qwen", "cursor")


@click.command()
@click.argument("client", type=click.Choice(_NAMES))
@click.option(
    "--user/--project",
    "is_user",
    default=True,
    help="Change the configuration of this user, or that of the current directory. Default: of this user.",
)
@click.option("--dry-run", is_flag=True, help="Show the changes as a diff, and write nothing.")
@click.option("--uninstall", is_flag=True, help="Remove the integration, and restore the files.")
@click.option("--yes", is_flag=True, help="Make a mesh on a host without one, without asking.")
@json_option
@answers.action(
    client="string",
    scope="string",
    status="string",
    reach="string",
    files="array",
    diff="string",
    mesh="string?",
)
def integrate(client: str, is_user: bool, dry_run: bool, uninstall: bool, yes: bool, as_json: bool) -> int:
    """Add the tools of the mesh to an agent's client, or remove them.

    CLIENT is claude (Claude Code), codex, gemini, qwen or cursor. The server and the hooks are added to the
    configuration of the client. A file of the user keeps its layout and comments; its copy from before is
    beside it as FILE.before-claudemesh. Repeating the command changes nothing. --uninstall restores each file
    byte for byte, unless other text in it was changed: then it takes out the entries of claudemesh alone.

    For Claude Code a plugin is written to ~/.claude/skills/claudemesh, and no other file.

    On a host without a mesh, the command offers to make one on this machine.

    \b
    Examples:
      claudemesh integrate claude
      claudemesh integrate codex --dry-run
      claudemesh integrate gemini --project
      claudemesh integrate claude --uninstall
    """
    # Imported here: the help of the command needs no client.
    from claudemesh.cli.integrate.clients import CLIENTS
    from claudemesh.cli.integrate.files import apply, diff, forget
    from claudemesh.cli.integrate.places import find_place

    chosen, place = CLIENTS[client], find_place("user" if is_user else "project")
    changes = _changes(chosen, place, uninstall=uninstall)
    shown, mesh = diff(changes), None
    if not dry_run:
        if not uninstall:
            mesh = _mesh(yes=yes)
        apply(changes)
        if uninstall:
            forget(changes)
            _tidy(client, place)
    status = _status(shown, dry_run=dry_run, uninstall=uninstall)
    files = [str(change.path) for change in changes if change.before != change.after]
    if shown and not as_json:
        output.say(shown)
    answer = {"client": client, "scope": place.scope, "status": status, "reach": chosen.reach}
    following = ["claudemesh doctor"] if status == "installed" else []
    words = _words(chosen, status, place.scope)
    for text in chosen.notes if status == "installed" else ():
        output.note(text)
    whole = {**answer, "files": files, "diff": shown, "mesh": mesh}
    return output.print_answer(as_json, whole, words, next=following)


def _changes(client: Client, place: Place, *, uninstall: bool) -> Sequence[Change]:
    if uninstall:
        return client.remove(place)
    others = client.others(place)
    if others:
        where, command = others[0]
        raise WrongUse(
            "registered_already",
            f"{client.title} starts the server already, by {where}. Two registrations of the same command "
            "break the hooks of one of them. Remove that one first.",
            next=command,
        )
    return client.install(place)


def _tidy(client: str, place: Place) -> None:
    """Remove the directory of the plugin, as far as it is empty."""
    if client != "claude":
        return
    from claudemesh.cli.integrate import claude

    own = claude.folder(place)
    for name in claude.files(place):
        _remove_empty((own / name).parent, own.parent)


def _remove_empty(folder: Path, until: Path) -> None:
    while folder != until:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _mesh(*, yes: bool) -> str | None:
    """Make a mesh on a host that has none, after asking. Return its name when one was made."""
    from claudemesh.client.meshes import meshes

    if meshes():
        return None
    text = "This host has no mesh."
    if not yes and not sys.stdin.isatty():
        output.note(f"{text} `claudemesh join` joins one; `claudemesh up -d --with-broker` makes one here.")
        return None
    if not yes:
        output.note(f"{text} One on this machine lets its sessions talk, and other hosts can join it later.")
        if not click.confirm("Make it?", default=True, err=True):
            return None
    from claudemesh.cli.integrate.first_mesh import make

    return make()


def _status(
    shown: str, *, dry_run: bool, uninstall: bool
) -> Literal["installed", "removed", "unchanged", "planned"]:
    if not shown:
        return "unchanged"
    if dry_run:
        return "planned"
    return "removed" if uninstall else "installed"


def _words(client: Client, status: str, scope: Scope) -> str:
    where = "for this user" if scope == "user" else "for this project"
    return {
        "installed": f"{client.title} has the tools of the mesh now, {where}.",
        "removed": f"{client.title} has the tools of the mesh no more, {where}.",
        "unchanged": f"Nothing to change: {client.title}, {where}, is as wanted.",
        "planned": "Nothing was written.",
    }[status]
