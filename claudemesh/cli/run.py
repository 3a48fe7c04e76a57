"""`claudemesh run`: one command as an ephemeral member of a mesh, for CI jobs.

The member's keys and messages are in a private home. Its daemon watches a pipe of this process: when this
process ends, by SIGKILL too, the daemon sends what it can, leaves the mesh and removes the home.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.invited import join_as_ephemeral, require_invite, take_invite
from claudemesh.cli.options import Duration, ca_file_option
from claudemesh.runtime.exits import TEMPORARY
from claudemesh.runtime.failpoints import failpoint

if TYPE_CHECKING:
    import signal

    from claudemesh.client.local import LocalClient

_SHOWN = 5
# The longest wait for the link before the command starts without it.
_LINK_S = 10.0
# The longest wait for the end of a daemon that does not answer any more.
_END_S = 5.0
_LOST = ("pending", "inflight", "dead")
# States of files that were shared, or that the command has deleted.
_FETCHABLE = ("shared", "deleted")
# States of files that go on by themselves; that of one whose message is in the outbox.
_WITH_MESSAGE = "attaching"
_WAITING = ("uploading", "announcing", _WITH_MESSAGE)
# A hook's token is for the daemon of the hook.
_WITHHELD = ("CLAUDEMESH_CAPABILITY_TOKEN",)


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--name", metavar="NAME", help="Name of the member. Default: the host name and four characters."
)
@click.option(
    "--invite",
    metavar="LINK",
    help="Invite to join by, or `-` for standard input. CLAUDEMESH_INVITE is safer.",
)
@click.option("--ttl", type=Duration(), metavar="TIME", help="Longest life of the member, such as 2h.")
@click.option(
    "--drain-timeout",
    type=Duration(),
    metavar="TIME",
    default="30s",
    show_default=True,
    help="Longest wait for the broker to accept what the command has sent, files too.",
)
@click.option("--insecure", is_flag=True, help="Allow unencrypted ws:// to another machine.")
@ca_file_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@answers.none("The output is that of COMMAND.")
def run(
    name: str | None,
    invite: str | None,
    ttl: int | None,
    drain_timeout: int,
    insecure: bool,
    ca_file: Path | None,
    command: tuple[str, ...],
) -> int:
    """Run a command as an ephemeral member, for CI jobs.

    The member joins by the invite in CLAUDEMESH_INVITE and leaves when COMMAND has ended and the broker has
    accepted all sends and files. Inside COMMAND, `claudemesh send` and the other commands use this member.
    COMMAND does not get the invite.

    \b
    Exit codes:
      that of COMMAND  128+n when signal n ended it
      126, 127         COMMAND cannot be executed, or is not found
      75               COMMAND succeeded, and sends were not accepted in time

    \b
    Examples:
      claudemesh run --name ci-42 -- make test
      claudemesh run -- sh -c 'make && claudemesh send alice "the build is green"'
    """
    link = require_invite(take_invite(invite))
    # Imported here: the help needs none of it.
    from claudemesh.cli.supervising import find_command
    from claudemesh.home.private_home import PrivateHome

    try:
        # Before the join, which would take a use of the invite.
        find_command(command[0])
    except OSError as error:
        return _not_started(command, error)
    outside = dict(os.environ)
    home = PrivateHome.make()
    try:
        slug = join_as_ephemeral(link, name, home.path, ttl_s=ttl, insecure=insecure, ca_file=ca_file)
        failpoint("run.after_join")
        return _run_as_member(slug, ttl, command, outside, drain_timeout)
    finally:
        home.close(wait_s=_END_S)


def _run_as_member(
    slug: str, ttl: int | None, command: Sequence[str], outside: Mapping[str, str], drain_timeout: int
) -> int:
    # Imported here: the help needs none of it.
    from claudemesh.cli.daemon.background import bound_daemon
    from claudemesh.cli.supervising import held_signals

    # A signal that ends this process before the signals are held ends the daemon too.
    with bound_daemon(slug, ["--ttl", f"{ttl}s"] if ttl else []), held_signals() as mask:
        return _supervise(slug, command, _environment(slug, outside), mask, drain_timeout)


def _supervise(
    slug: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    mask: set[signal.Signals],
    drain_timeout: int,
) -> int:
    from claudemesh.cli.daemon.control import stop
    from claudemesh.cli.supervising import run_command, wait_for
    from claudemesh.client.errors import ClientError
    from claudemesh.client.local import LocalClient

    client = LocalClient(slug)
    try:
        # The command may send to a member by name, which the daemon looks up at the broker.
        code = wait_for(lambda: bool(client.get("/v1/health")["connected"]), _LINK_S)
        code = code or run_command(command, environment, mask)
    except OSError as error:
        code = _not_started(command, error)
    try:
        stopped_by = _drain(client, drain_timeout)
        stop(client)
    except ClientError as error:
        output.error(
            f"The daemon of this member has ended before the command: {error.message} Sends that the broker "
            "had not accepted by then are lost."
        )
        stopped_by = TEMPORARY
    return code or stopped_by


def _not_started(command: Sequence[str], error: OSError) -> int:
    from claudemesh.cli.supervising import exit_code_of

    output.error(f"The command {command[0]} cannot be started: {error.strerror}.")
    return exit_code_of(error)


def _drain(client: LocalClient, seconds: int) -> int:
    """Wait until the broker has accepted all sends and has all files. Returns 0, or the exit code when some
    are lost."""
    from claudemesh.cli.supervising import wait_for

    def is_drained() -> bool:
        health = client.get("/v1/health")
        if health["queue_depth"] or health["inflight"]:
            return False
        waiting = health["files_waiting"]
        return not waiting or (waiting <= health["dead"] and _are_given_up(client))

    ended = wait_for(is_drained, seconds)
    if ended == 0:
        why = "The broker refused them, or their time was over."
    else:
        why = "A signal ended the wait." if ended else f"The wait ended after {seconds} s (--drain-timeout)."
    told = [_tell_lost_sends(client, why), _tell_lost_files(client, why)]
    return ended or (TEMPORARY if any(told) else 0)


def _tell_lost_sends(client: LocalClient, why: str) -> bool:
    """Name the sends that the broker has not accepted; return whether there are any."""
    pages = {status: client.get("/v1/outbox", status=status)["items"] for status in _LOST}
    lost = [row["client_message_id"] for page in pages.values() for row in page]
    if lost:
        health = client.get("/v1/health")
        count = health["queue_depth"] + health["inflight"] + health["dead"]
        output.error(f"Sends that the broker has not accepted are lost: {_named(lost, count)}. {why}")
    return bool(lost)


def _are_given_up(client: LocalClient) -> bool:
    """Return whether the messages of all files and long texts that wait were given up."""
    waiting = [item for item in _shared(client) if item["state"] in _WAITING]
    return all(item["state"] == _WITH_MESSAGE for item in waiting) and all(
        client.get(f"/v1/outbox/{item['client_message_id']}")["status"] == "dead" for item in waiting
    )


def _tell_lost_files(client: LocalClient, why: str) -> bool:
    """Name the files and long texts that no recipient can fetch; return whether there are any."""
    lost = [item for item in _shared(client) if item["state"] not in _FETCHABLE]
    if lost:
        # A long text has no name but that of its send.
        names = [output.safe(item["client_message_id" if item["is_text"] else "name"]) for item in lost]
        told = _named(names, len(lost))
        output.error(f"Files and long texts that their recipients cannot fetch are lost: {told}. {why}")
    return bool(lost)


def _shared(client: LocalClient) -> list[dict[str, Any]]:
    return client.items("/v1/file/list", direction="out", texts="true")


def _named(lost: Sequence[str], count: int) -> str:
    """Return the first of what is lost, and the number of all."""
    return f"{', '.join(lost[:_SHOWN])}{' and others' if count > _SHOWN else ''} ({count} in all)"


def _environment(slug: str, outside: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the command: this one, and the way to the member's daemon."""
    from claudemesh.home.paths import daemon_paths

    kept = {name: value for name, value in outside.items() if name not in _WITHHELD}
    return {**kept, "CLAUDEMESH_DAEMON_SOCK": str(daemon_paths(slug).sock), "CLAUDEMESH_MESH": slug}
