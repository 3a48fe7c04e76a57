"""`claudemesh daemon remint`."""

from __future__ import annotations

import sys

import click

from claudemesh.cli import answers, output
from claudemesh.cli.next_commands import command
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.meshes import choose_mesh
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.exits import CANNOT_CREATE, ExitWith


@click.command()
@click.option("--invite", metavar="LINK", help="Invite for the new member, or `-` for standard input.")
@click.option(
    "--name", metavar="NAME", help="Name of the new member. Default: the old one and four characters."
)
@mesh_option
@json_option
@answers.action(old_files="string", **answers.MEMBERSHIP)
def remint(invite: str | None, name: str | None, mesh: str | None, as_json: bool) -> int:
    """Make this host a member of its own, with new keys.

    For a host whose directory is a copy of another host's: of an image, or of a home. The host that has the
    keys already keeps its member. Here unsent messages, inbox and old keys are moved into a folder, because
    they belong to the other member. Pinned keys, settings and hooks stay.

    Without --invite the invite by which this directory joined is used, if it has a use left.

    \b
    Examples:
      claudemesh daemon remint --invite 'claudemesh://join/…'
      claudemesh daemon up -d
    """
    # Imported here: keys need the crypto library, and most commands do not.
    from claudemesh.client.remint import remint as make_member
    from claudemesh.daemon.settings import load_settings
    from claudemesh.protocol.invites import MAX_PASTED_CHARACTERS
    from claudemesh.runtime.files import FileLock

    slug = choose_mesh(mesh)
    paths = daemon_paths(slug)
    link = sys.stdin.read(MAX_PASTED_CHARACTERS) if invite == "-" else invite
    lock = FileLock(paths.lock)
    if not lock.acquire():
        text = f"The daemon of mesh {slug} runs. Stop it first; nothing was changed."
        raise ExitWith(CANNOT_CREATE, "already_running", text, next=command("daemon", "down", mesh=mesh))
    try:
        made = make_member(paths, link, name, load_settings(paths.config).clone_id_override)
    finally:
        lock.release()
    text = f"this host is {made['name']} in mesh {slug} now; the old files are in {made['old_files']}"
    return output.print_answer(as_json, made, text, next=[command("daemon", "up", "-d", mesh=mesh)])
