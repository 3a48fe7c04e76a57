"""`claudemesh daemon status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

import claudemesh
from claudemesh.cli import answers, output
from claudemesh.cli.daemon.control import shown_pid
from claudemesh.cli.options import all_option, json_option, mesh_option, refuse_mesh_with_all
from claudemesh.client.local import LocalClient

# The daemon counts no further.
_MOST_COUNTED = 10_000


@click.command()
@click.argument("message", metavar="ID", required=False)
@all_option("Show a line for each mesh of this host. The exit code is 69 unless all daemons run.")
@mesh_option
@json_option
@answers.exits({69: "No daemon runs."})
@answers.others(
    "With ID: a list with the send, as `outbox inspect` prints it. With --all: a list with mesh, state and "
    "detail of each mesh, and error where it failed."
)
@answers.one("Health")
def status(message: str | None, is_all: bool, mesh: str | None, as_json: bool) -> int:
    """Show the state of the daemon, or with ID how far a send has come. The exit code is 69 when none runs.

    ID is the client_message_id of a send, which `claudemesh send` prints. Each recipient that was asked for a
    receipt is listed with the times at which the message was delivered, shown and acknowledged there.

    \b
    Examples:
      claudemesh daemon status
      claudemesh daemon status --json | jq .connected
      claudemesh status deploy-42
    """
    if is_all:
        # Imported here: most calls are for one mesh.
        from claudemesh.cli.daemon.fleet import status_all

        refuse_mesh_with_all(mesh)
        if message is not None:
            raise click.UsageError("Give ID or --all, not both.")
        return status_all(as_json)
    client = LocalClient(mesh)
    if message is not None:
        # Imported here: most calls are about the daemon.
        from claudemesh.cli.progress import show_progress

        show_progress(client, message, as_json=as_json)
        return 0
    health = client.get("/v1/health")
    if as_json:
        output.print_json(health)
        return 0
    link = f"connected to {health['broker_url']}"
    if not health["connected"]:
        link = f"not connected ({health['last_error'] or 'connecting'})"
    waiting = f"{health['queue_depth']} queued, {health['inflight']} in flight, {health['dead']} dead"
    output.fields(
        {
            "mesh": health["mesh"],
            "name": health["name"],
            "link": link,
            "waiting": waiting,
            "unread": _unread(health),
            **_files(health.get("files_waiting")),
            **_sealed(health.get("sealed")),
            "degraded": ", ".join(item["code"] for item in health["degraded"]) or "no",
            "up": f"{output.span(health['uptime_s'])}, {shown_pid(client, health)}",
            "version": _version(health["daemon_version"]),
            "console": _console(health),
            "key": health["member_pubkey"],
        }
    )
    for item in health["degraded"]:
        output.note(f"{item['code']}, since {output.moment(item['since'])}: {item['message']}")
    if health["dead"]:
        output.note("Dead sends need a decision.\nnext: claudemesh daemon outbox list --failed")
    return 0


def _version(daemon_version: str) -> str:
    """Return the version of the daemon for display, with that of this command when they differ."""
    own = claudemesh.__version__
    return daemon_version if daemon_version == own else f"{daemon_version} (this command: {own})"


def _console(health: Mapping[str, Any]) -> str:
    """Return the address of the console for display; an older daemon does not tell it."""
    url = health.get("console_url")
    return f"{url} (claudemesh web opens it)" if url else "off"


def _files(waiting: int | None) -> dict[str, str]:
    """Return the line about files on their way, if there are any; an older daemon does not tell."""
    return {"files": f"{waiting} not shared yet"} if waiting else {}


def _sealed(found: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the line about messages without a text, if there are any; an older daemon does not tell."""
    parts = []
    if found and found["waiting"]:
        parts.append(f"{found['waiting']} wait for a key since {output.moment(found['since'])}")
    if found and found["unreadable"]:
        parts.append(f"{found['unreadable']} unreadable")
    return {"sealed": ", ".join(parts)} if parts else {}


def _unread(health: Mapping[str, Any]) -> str:
    """Return the number of unread messages for display; an older daemon does not tell it."""
    count = health.get("unread")
    if count is None:
        return "unknown"
    return f"{count} or more" if count >= _MOST_COUNTED else str(count)
