"""`claudemesh daemon up`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from claudemesh.cli import answers
from claudemesh.cli.daemon.background import keep_running, start_in_background
from claudemesh.cli.invited import require_invite, slug_of, take_invite
from claudemesh.cli.options import (
    Duration,
    all_option,
    ca_file_option,
    default_name,
    json_option,
    mesh_option,
    refuse_mesh_with_all,
)
from claudemesh.client.current_mesh import from_environment
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import choose_mesh, meshes
from claudemesh.home.environment import detect_environment
from claudemesh.home.identity_mode import IdentityMode, identity_mode
from claudemesh.home.paths import daemon_paths

DEFAULT_MESH = "home"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of a start."""

    detach: bool
    with_broker: bool
    name: str | None
    asked: bool | None
    ttl: int | None
    with_launcher: bool
    ca_file: Path | None
    mesh: str | None
    as_json: bool


@click.command()
@click.option("-d", "--detach", is_flag=True, help="Run in the background. Return when the daemon answers.")
@click.option(
    "--with-broker", is_flag=True, help="Run a broker inside the daemon, for a mesh on one machine."
)
@click.option("--name", metavar="NAME", help="Name of this member from now on.")
@click.option(
    "--invite",
    metavar="LINK",
    help="Join by this invite first. CLAUDEMESH_INVITE keeps it out of the command line.",
)
@click.option(
    "--ephemeral/--persistent",
    "asked",
    default=None,
    help="Let the member end with the daemon, or keep it. Default: ephemeral in CI and in Kubernetes.",
)
@click.option(
    "--ttl", type=Duration(), metavar="TIME", help="Longest life of an ephemeral member, such as 2h."
)
@click.option("--with-launcher", is_flag=True, hidden=True, help="Stop when standard input ends.")
@ca_file_option
@all_option("Start the daemons of all meshes of this host in the background, within fleet.toml.")
@mesh_option
@json_option
@answers.exits(
    {73: "Another daemon runs for this mesh, or runs without the wanted broker, or a file cannot be created."}
)
@answers.others("With --all: a list with mesh, state and detail of each mesh, and error where it failed.")
@answers.action(status="string", mesh="string", pid="integer*", home="string*")
def up(invite: str | None, is_all: bool, **options: Any) -> int:
    """Start the daemon.

    It runs in the foreground, for a service manager, unless -d is given. With --with-broker and without a
    mesh, the mesh `home` is created. When a daemon runs already, `claudemesh up` and `-d` succeed, except
    that --with-broker ends with 73 when it runs without one. `claudemesh daemon up` in the foreground ends
    with 73.

    An ephemeral member has its keys and messages in a private temporary folder. It leaves the mesh when the
    daemon stops, and the folder is removed.

    \b
    Examples:
      claudemesh daemon up -d
      claudemesh daemon up -d --with-broker
      claudemesh daemon up --ephemeral --ttl 2h
      claudemesh daemon up --all
    """
    wanted = Wanted(**options)
    if is_all:
        return _up_all(wanted, invite)
    link = take_invite(invite)
    mode = _mode(wanted, link)
    if mode.ephemeral and (link is not None or wanted.asked):
        return _up_ephemeral(wanted, require_invite(link))
    if wanted.ttl is not None and not _is_ephemeral(choose_mesh(wanted.mesh)):
        raise click.UsageError("--ttl bounds the life of an ephemeral member: add --ephemeral.")
    mesh = wanted.mesh or from_environment()
    if link is not None:
        mesh = mesh or slug_of(link)
        if mesh not in meshes():
            # Imported here: only a start that joins needs it.
            from claudemesh.client.join import join

            join(link, wanted.name, default_name(), ca_file=wanted.ca_file)
    slug = (mesh or DEFAULT_MESH) if wanted.with_broker and _is_new(mesh) else choose_mesh(mesh)
    return _up(wanted, slug, mode)


def _up_all(wanted: Wanted, invite: str | None) -> int:
    given = (invite, wanted.name, wanted.asked, wanted.ttl, wanted.ca_file)
    if wanted.with_broker or any(value is not None for value in given):
        raise click.UsageError("--all starts each daemon with the options of its last start: give no others.")
    refuse_mesh_with_all(wanted.mesh)
    # Imported here: most starts are of one daemon.
    from claudemesh.cli.daemon.fleet import up_all

    return up_all(wanted.as_json)


def _up(wanted: Wanted, slug: str, mode: IdentityMode) -> int:
    if wanted.detach:
        return start_in_background(slug, wanted.with_broker, wanted.name, wanted.as_json)
    if _is_shortcut() and daemon_paths(slug).membership.exists() and LocalClient(slug).is_running():
        return keep_running(slug, wanted.with_broker, wanted.name, wanted.as_json)
    # Imported here: only the process that becomes the daemon needs it.
    from claudemesh.cli.process import Lifetime, run_daemon

    lifetime = Lifetime(wanted.ttl, with_launcher=wanted.with_launcher)
    # The background process of an ephemeral member finds a membership, and that is no persistent one.
    warning = None if mode.warning is None or _is_ephemeral(slug) else mode.warning
    return run_daemon(
        slug, with_broker=wanted.with_broker, name=wanted.name, lifetime=lifetime, warning=warning
    )


def _up_ephemeral(wanted: Wanted, link: str) -> int:
    """Join with keys in a private home, and start the daemon there."""
    # Imported here: only an ephemeral member needs them.
    from claudemesh.cli.invited import join_as_ephemeral
    from claudemesh.home.private_home import PrivateHome

    home = PrivateHome.make()
    try:
        slug = join_as_ephemeral(link, wanted.name, home.path, ttl_s=wanted.ttl, ca_file=wanted.ca_file)
        if wanted.detach:
            return start_in_background(slug, False, None, wanted.as_json, ttl_s=wanted.ttl, home=home.path)
        return _up(wanted, slug, IdentityMode(ephemeral=True))
    finally:
        home.close()


def _mode(wanted: Wanted, link: str | None) -> IdentityMode:
    if wanted.with_broker:
        return identity_mode("machine", asked=wanted.asked, is_member=True)
    known = meshes()
    is_member = bool(known) if link is None else (wanted.mesh or slug_of(link)) in known
    return identity_mode(detect_environment(os.environ), asked=wanted.asked, is_member=is_member)


def _is_ephemeral(slug: str) -> bool:
    """Tell whether the membership of this home is that of an ephemeral member."""
    # Imported here: most starts need no answer.
    from claudemesh.home.membership import load_membership

    path = daemon_paths(slug).membership
    return path.exists() and load_membership(path).ephemeral


def _is_shortcut() -> bool:
    """Tell whether this is `claudemesh up`, typed by hand, and not `claudemesh daemon up` of a service."""
    parent = click.get_current_context().parent
    return parent is not None and parent.parent is None


def _is_new(mesh: str | None) -> bool:
    return not meshes() if mesh is None else mesh not in meshes()
