"""`claudemesh invite`."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from claudemesh.cli import answers, output
from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.invite_list import list_invites, revoke_invite
from claudemesh.cli.options import Duration, json_option, mesh_option
from claudemesh.client.broker import BrokerClient
from claudemesh.client.errors import ClientError, WrongAddress
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import choose_mesh
from claudemesh.client.own_broker import outward_url
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.urls import is_loopback

if TYPE_CHECKING:
    from claudemesh.protocol.statements import Statement


@click.group(cls=CommandGroup)
def invite() -> None:
    """Create, list and revoke invites. An invite is a link by which another host joins a mesh.

    \b
    Examples:
      claudemesh invite create
      claudemesh invite list
    """


invite.add_command(list_invites)
invite.add_command(revoke_invite)


@invite.command("create")
@click.option(
    "--role",
    type=click.Choice(["member", "admin", "owner"]),
    default="member",
    show_default=True,
    help="Role of the new member.",
)
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Number of hosts.")
@click.option(
    "--expires", type=Duration(), default="24h", show_default=True, help="Lifetime, such as 30m or 7d."
)
@click.option(
    "--broker-url",
    metavar="URL",
    help="Address at which the new host dials the broker. Default: that of this host; for a broker on this "
    "host an address that other hosts reach.",
)
@click.option("--qr", is_flag=True, help="Print the link as a QR code too.")
@click.option(
    "--ephemeral-only", is_flag=True, help="Admit ephemeral members only, such as CI jobs (`claudemesh run`)."
)
@click.option("--name", metavar="NAME", help="Name of the new member. It cannot choose another one.")
@click.option(
    "--replace",
    "is_replacing",
    is_flag=True,
    help="Let the new member take NAME over from the member that had it: other hosts follow without a "
    "question. That member has to have left, or to be revoked.",
)
@mesh_option
@json_option
@answers.action(
    invite="string",
    invite_id="string",
    expires_at="time",
    uses="integer",
    role="string",
    ephemeral_only="boolean",
    name="string?",
    replaces="string?",
    warning="string?",
)
def create_invite(
    role: str,
    uses: int,
    expires: int,
    broker_url: str | None,
    qr: bool,
    ephemeral_only: bool,
    name: str | None,
    is_replacing: bool,
    mesh: str | None,
    as_json: bool,
) -> int:
    """Create an invite and print its link.

    The link is signed with this host's key, so the broker cannot forge one. Any host that has the link can
    join: send it over a private channel.

    \b
    Examples:
      claudemesh invite create
      claudemesh invite create --uses 10 --expires 7d
      claudemesh invite create --broker-url wss://mesh.example.org --qr
      claudemesh invite create --uses 1000 --expires 30d --ephemeral-only
      claudemesh invite create --name laptop --replace
    """
    if is_replacing and (name is None or uses != 1):
        raise click.UsageError("--replace needs --name, and an invite for one host.")
    from claudemesh.client.join import make_invite
    from claudemesh.home.membership import load_membership

    slug = choose_mesh(mesh)
    paths = daemon_paths(slug)
    dialled = load_membership(paths.membership).broker_url
    given = None if broker_url is None else _checked(broker_url, paths.broker_ca)
    made, link = make_invite(
        slug,
        broker_url=given or outward_url(dialled),
        role=role,
        uses=uses,
        expires_in_s=expires,
        ephemeral_only=ephemeral_only,
        name=name,
        replace_by=partial(_replacement, slug, name) if is_replacing and name is not None else None,
    )
    try:
        BrokerClient(dialled, insecure=True, ca_file=paths.broker_ca).register_invite(link)
    except ClientError as error:
        output.note(
            f"The broker has not registered this invite: {error.message} The invite works all the same."
        )
    warning = _loopback_warning(made.broker_url)
    if warning is not None:
        output.note(warning)
    answer = {
        "invite": link,
        "invite_id": made.invite_id,
        "expires_at": iso_ms(made.expires_at_ms),
        "uses": uses,
        "role": role,
        "ephemeral_only": ephemeral_only,
        "name": name,
        "replaces": None if made.replacement is None else made.replacement.subject,
        "warning": warning,
    }
    following = [f"claudemesh join {shlex.quote(link)}"]
    code = output.print_answer(as_json, answer, link, next=following, made=link, hint=False)
    if qr and not as_json:
        from claudemesh.cli.qr import print_qr

        print_qr(link)
    return code


def _replacement(slug: str, name: str, invite_id: str) -> Statement:
    """Return the statement by which another member takes a name over, signed by the daemon."""
    from claudemesh.protocol.statements import Statement

    body = {"name": name, "invite_id": invite_id}
    return Statement.parse(LocalClient(slug).post("/v1/members/replacement", body)["statement"])


def _checked(url: str, ca_file: Path) -> str:
    """Return an address for an invite. `WrongAddress` when the broker there does not know it for its own."""
    broker = BrokerClient(url, insecure=True, ca_file=ca_file)
    try:
        broker.check_address(broker.challenge())
    except WrongAddress:
        raise
    except ClientError as error:
        output.note(f"This host cannot check the address for the invite. {error.message}")
    return broker.url


def _loopback_warning(url: str) -> str | None:
    """Return a warning for an invite that only this machine can use."""
    if not is_loopback(urlsplit(url).hostname or ""):
        return None
    return (
        f"Only this machine can join by this invite: it holds {url}. Let the broker listen at an address "
        "that other hosts reach (`broker up --listen 0.0.0.0:7900`, with --public-url behind a proxy or "
        "in several networks), and create another invite, with --broker-url when the broker runs on another "
        "host."
    )
