"""`claudemesh mesh`."""

from __future__ import annotations

from pathlib import Path

import click

from claudemesh.cli import answers, output
from claudemesh.cli.broker.admin import data_dir_option, no_broker, read_token
from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.mesh_choice import list_meshes, use
from claudemesh.cli.next_commands import command, needed
from claudemesh.cli.options import ca_file_option, default_name, json_option, mesh_option
from claudemesh.client.broker import UNREACHABLE, BrokerClient
from claudemesh.client.errors import ClientError
from claudemesh.client.meshes import choose_mesh
from claudemesh.client.own_broker import OwnBroker, chosen_data_dir, find_broker

DEFAULT_BROKER = "ws://127.0.0.1:7900"


@click.group(cls=CommandGroup)
def mesh() -> None:
    """Create, list, choose and move meshes. A mesh is a group of members that send messages to each other.

    \b
    Examples:
      claudemesh mesh create team --name alice
      claudemesh mesh list
      claudemesh mesh use team
    """


mesh.add_command(list_meshes)
mesh.add_command(use)


@mesh.command()
@click.argument("slug")
@click.option(
    "--broker",
    "url",
    metavar="URL",
    help=f"URL of the broker. Default: the broker of this host, or {DEFAULT_BROKER}.",
)
@click.option("--name", metavar="NAME", help="Name of this host in the mesh. Default: the host name.")
@click.option(
    "--admin-token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File with the broker's admin token.",
)
@data_dir_option
@click.option("--insecure", is_flag=True, help="Allow unencrypted ws:// to another machine.")
@ca_file_option
@json_option
@answers.action(**answers.MEMBERSHIP)
def create(
    slug: str,
    url: str | None,
    name: str | None,
    admin_token_file: Path | None,
    data_dir: Path | None,
    insecure: bool,
    ca_file: Path | None,
    as_json: bool,
) -> int:
    """Create a mesh on a broker. This host becomes its first member and owner.

    SLUG is the name of the mesh: up to 63 lower-case letters, digits, dots, underscores and hyphens, of
    which the first is a letter or a digit.

    The broker's admin token is needed. It is read from --admin-token-file, else from
    CLAUDEMESH_BROKER_ADMIN_TOKEN, else from the data directory of this user's own broker (--data-dir).

    \b
    Examples:
      claudemesh mesh create team --name alice
      claudemesh mesh create team --broker wss://mesh.example.org \\
          --admin-token-file token.txt
    """
    # Imported here: keys need the crypto library, and most commands do not.
    from claudemesh.client.join import create_mesh
    from claudemesh.protocol.ids import check_slug

    check_slug(slug)
    folder = chosen_data_dir(data_dir)
    own = None if url is not None else _own_broker(folder, data_dir is not None)
    dialled = url or (DEFAULT_BROKER if own is None else own.member_url)
    broker = BrokerClient(dialled, insecure=insecure, ca_file=ca_file)
    named = name or default_name()
    try:
        token = read_token(admin_token_file, folder, broker, is_named=url is not None)
        membership = create_mesh(broker, token, slug, named, ca_file=ca_file)
    except ClientError as error:
        if error.code == UNREACHABLE and own is not None and error.next is None:
            error.next = _past_the_public_address(own, slug, named)
        raise
    text = f"created mesh {slug} with this host as {membership['name']}"
    other = needed(slug)
    following = [command("daemon", "up", "-d", mesh=other), command("invite", "create", mesh=other)]
    return output.print_answer(as_json, membership, text, next=following)


@mesh.command()
@click.argument("url", metavar="URL")
@click.option("--insecure", is_flag=True, help="Allow unencrypted ws:// to another machine.")
@mesh_option
@json_option
@answers.action(mesh="string", to="string", **{"from": "string"})
def move(url: str, insecure: bool, mesh: str | None, as_json: bool) -> int:
    """Let all hosts of a mesh dial its broker at another address.

    The broker must know URL as one of its own addresses (`broker up --public-url`), beside the present one.
    This host must be an owner: it signs the new address, and each daemon verifies that, tries the address,
    and keeps it when the broker answers there. A host that is away learns of it at its next link, so keep
    the present address until every host has moved.

    \b
    Examples:
      claudemesh mesh move wss://mesh.example.org
    """
    # Imported here: keys need the crypto library, and most commands do not.
    from claudemesh.client.moving import move_mesh

    moved = move_mesh(choose_mesh(mesh), url, insecure=insecure)
    text = f"mesh {moved['mesh']} moves from {moved['from']} to {moved['to']}"
    return output.print_answer(as_json, moved, text)


def _own_broker(folder: Path, is_named: bool) -> OwnBroker | None:
    """Return this host's broker. Its public address is dialled, if it has any, because invites hold it."""
    found = find_broker(folder)
    if found is None and is_named:
        raise no_broker(folder)
    return found


def _past_the_public_address(own: OwnBroker, slug: str, name: str) -> str | None:
    """Return the command that dials this host's broker directly: its proxy, or its name, may come later.

    With TLS there is none, because the certificate is made out to the public address.
    """
    if not own.local_url.startswith("ws:"):
        return None
    return command("mesh", "create", slug, "--name", name, "--broker", own.local_url)
