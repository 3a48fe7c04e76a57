"""`claudemesh mesh`, `invite` and `join`."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

import click

from claudemesh.cli import output
from claudemesh.cli.broker_admin import read_token
from claudemesh.cli.options import Duration, json_option, mesh_option
from claudemesh.client.broker import BrokerClient
from claudemesh.client.errors import ClientError
from claudemesh.client.meshes import choose_mesh
from claudemesh.home.paths import broker_data_dir
from claudemesh.runtime.clock import iso_ms

DEFAULT_BROKER = "ws://127.0.0.1:7900"


def own_name() -> str:
    """Return this host's name as a member's name."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", platform.node().partition(".")[0])[:63]
    return name if re.match(r"[A-Za-z0-9]", name) else "host"


@click.group()
def mesh() -> None:
    """Meshes: groups of members that can write to each other."""


@mesh.command()
@click.argument("slug")
@click.option("--broker", "url", default=DEFAULT_BROKER, show_default=True, metavar="URL")
@click.option("--name", metavar="NAME", help="This host's name in the mesh; its host name by default.")
@click.option("--admin-token-file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--insecure", is_flag=True, help="Allow ws:// to another machine.")
@json_option
def create(
    slug: str, url: str, name: str | None, admin_token_file: Path | None, insecure: bool, as_json: bool
) -> None:
    """Make a mesh on a broker, with this host as its first member (owner).

    \b
    claudemesh broker up &
    claudemesh mesh create team --name alice
    """
    # Imported here: keys need the crypto library, and most commands do not.
    from claudemesh.client.join import create_mesh
    from claudemesh.protocol.ids import check_slug

    check_slug(slug)
    broker = BrokerClient(url, insecure=insecure)
    token = read_token(admin_token_file, broker_data_dir(), broker)
    membership = create_mesh(broker, token, slug, name or own_name())
    if as_json:
        output.print_json(membership)
        return
    output.say(f"made mesh {slug}; this host is {membership['name']}, its owner")
    output.note("Next: claudemesh daemon up -d, then claudemesh invite create.")


@click.group()
def invite() -> None:
    """Invites: how other hosts come in."""


@invite.command("create")
@click.option("--role", type=click.Choice(["member", "admin", "owner"]), default="member", show_default=True)
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True)
@click.option("--expires", type=Duration(), default="24h", show_default=True)
@mesh_option
@json_option
def create_invite(role: str, uses: int, expires: int, mesh: str | None, as_json: bool) -> None:
    """Print a link that lets another host join. It is signed here; the broker cannot forge one."""
    from claudemesh.client.join import make_invite

    made, link = make_invite(choose_mesh(mesh), role=role, uses=uses, expires_in_s=expires)
    try:
        BrokerClient(made.broker_url, insecure=True).register_invite(link)
    except ClientError as error:
        output.note(f"The broker does not know of this invite yet ({error.message}); it works all the same.")
    if as_json:
        output.print_json(
            {
                "invite": link,
                "invite_id": made.invite_id,
                "expires_at": iso_ms(made.expires_at_ms),
                "uses": uses,
                "role": role,
            }
        )
        return
    output.say(link)


@click.command()
@click.argument("link")
@click.option("--name", metavar="NAME", help="This host's name in the mesh; its host name by default.")
@click.option("--insecure", is_flag=True, help="Allow ws:// to another machine.")
@json_option
def join(link: str, name: str | None, insecure: bool, as_json: bool) -> None:
    """Join a mesh by an invite LINK, or by one on stdin (-), which no other user of this machine can see.

    A member that its broker has forgotten joins again with a new invite, and keeps its queues and its inbox.
    """
    from claudemesh.client.join import join as join_mesh
    from claudemesh.protocol.invites import MAX_LINK_CHARACTERS

    if link == "-":
        link = sys.stdin.read(MAX_LINK_CHARACTERS)
    joined = join_mesh(link.strip(), name, own_name(), insecure=insecure)
    if as_json:
        output.print_json(joined)
        return
    output.say(f"joined mesh {joined['slug']} as {joined['name']}")
    output.note("Next: claudemesh daemon up -d.")
