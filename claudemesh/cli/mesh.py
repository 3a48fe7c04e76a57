"""`claudemesh mesh`."""

from __future__ import annotations

from pathlib import Path

import click

from claudemesh.cli import output
from claudemesh.cli.broker.admin import read_token
from claudemesh.cli.options import default_name, json_option
from claudemesh.client.broker import BrokerClient
from claudemesh.home.paths import broker_data_dir

DEFAULT_BROKER = "ws://127.0.0.1:7900"


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
    membership = create_mesh(broker, token, slug, name or default_name())
    if as_json:
        output.print_json(membership)
        return
    output.say(f"made mesh {slug}; this host is {membership['name']}, its owner")
    output.note("Next: claudemesh daemon up -d, then claudemesh invite create.")
