"""`claudemesh broker mesh`."""

from __future__ import annotations

from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.broker.admin import AdminClient, admin_options, print_list
from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.options import json_option
from claudemesh.cli.output import Column
from claudemesh.client.errors import ApiError

_POLICIES = (
    "clone_concurrency_policy",
    "dedupe_retention_mode",
    "dedupe_retention_days",
    "message_retention_days",
    "rate_limit_per_minute",
    "member_rate_limit_per_minute",
    "member_bytes_per_minute",
    "stored_bytes",
    "member_stored_bytes",
    "member_topics",
    "member_subscriptions",
    "member_invites",
    "audit_retention_days",
    "audit_events",
)

# Columns of the table. The other policies are in --json.
_COLUMNS = (
    "slug",
    "online",
    "created_at",
    "message_retention_days",
    "rate_limit_per_minute",
    "stored_bytes",
)
_TITLES = {"stored_bytes": Column("stored_quota", "bytes")}

_MESH = {
    "mesh_id": "string",
    "slug": "string",
    "created_at": "time",
    **dict.fromkeys(_POLICIES, "integer"),
    "clone_concurrency_policy": "string",
    "dedupe_retention_mode": "string",
    "online": "integer",
}


@click.group(cls=CommandGroup)
def mesh() -> None:
    """List meshes and set their policies. `claudemesh mesh create` creates a mesh.

    \b
    Examples:
      claudemesh broker mesh list
    """


@mesh.command("list")
@admin_options
@json_option
@answers.items(**_MESH)
def list_meshes(as_json: bool, **which: Any) -> None:
    """List the meshes of the broker. With --json, each has all its policies.

    \b
    Examples:
      claudemesh broker mesh list --json
    """
    print_list(AdminClient(**which), as_json, "meshes", _COLUMNS, _TITLES)


@mesh.command("set")
@click.argument("slug")
@click.option(
    "--clone-concurrency-policy",
    type=click.Choice(["prefer_newest", "prefer_oldest", "allow_concurrent"]),
    help="Handling of several connections of one member.",
)
@click.option(
    "--dedupe-retention-mode",
    type=click.Choice(["retention_scoped", "permanent"]),
    help="Whether ids of messages are kept for a time or for ever.",
)
@click.option("--dedupe-retention-days", type=int, help="Days for which ids of messages are kept.")
@click.option("--message-retention-days", type=int, help="Days for which messages are kept.")
@click.option("--rate-limit-per-minute", type=int, help="Sends per minute of the mesh. Default: 120000.")
@click.option(
    "--member-rate-limit-per-minute", type=int, help="Sends per minute of each member. Default: 30000."
)
@click.option(
    "--member-bytes-per-minute", type=int, help="Bytes sent per minute by each member. Default: 256 MiB."
)
@click.option("--stored-bytes", type=int, help="Stored bytes of the mesh. Default: 128 GiB.")
@click.option("--member-stored-bytes", type=int, help="Stored bytes of each member. Default: 16 GiB.")
@click.option("--member-topics", type=int, help="Topics and queues of each member. Default: 1000.")
@click.option("--member-subscriptions", type=int, help="Subscriptions of each member. Default: 10000.")
@click.option("--member-invites", type=int, help="Open invites of each member. Default: 1000.")
@click.option("--audit-retention-days", type=int, help="Days for which audit events are kept. Default: 365.")
@click.option("--audit-events", type=int, help="Number of audit events that are kept. Default: 100000.")
@admin_options
@json_option
@answers.action(**_MESH)
def set_mesh(slug: str, as_json: bool, **options: Any) -> int:
    """Set policies of a mesh. They apply to new connections.

    \b
    Examples:
      claudemesh broker mesh set team --message-retention-days 30
    """
    changes = {name: options.pop(name) for name in _POLICIES}
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        raise click.UsageError("No policy is given.")
    client = AdminClient(**options)
    try:
        answer = client.post("meshes/set", {"mesh": slug, **given})
    except ApiError as error:
        raise client.about_mesh(slug, error) from error
    return output.print_answer(as_json, answer, f"set {', '.join(given)} of {slug}")
