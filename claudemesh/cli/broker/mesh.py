"""`claudemesh broker mesh`."""

from __future__ import annotations

from typing import Any

import click

from claudemesh.cli import output
from claudemesh.cli.broker.admin import AdminClient, admin_options, print_list
from claudemesh.cli.options import json_option

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


@click.group()
def mesh() -> None:
    """The meshes of a broker; `claudemesh mesh create` makes one."""


@mesh.command("list")
@admin_options
@json_option
def list_meshes(as_json: bool, **which: Any) -> None:
    """List meshes and their policies."""
    print_list(AdminClient(**which), as_json, "meshes", ("slug", "online", *_POLICIES))


@mesh.command("set")
@click.argument("slug")
@click.option(
    "--clone-concurrency-policy", type=click.Choice(["prefer_newest", "prefer_oldest", "allow_concurrent"])
)
@click.option("--dedupe-retention-mode", type=click.Choice(["retention_scoped", "permanent"]))
@click.option("--dedupe-retention-days", type=int)
@click.option("--message-retention-days", type=int)
@click.option("--rate-limit-per-minute", type=int, help="Sends of the whole mesh, default 120000.")
@click.option("--member-rate-limit-per-minute", type=int, help="Sends of each member, default 30000.")
@click.option("--member-bytes-per-minute", type=int, help="Bytes of each member's sends, default 256 MiB.")
@click.option("--stored-bytes", type=int, help="Bytes of all messages that are kept, default 128 GiB.")
@click.option("--member-stored-bytes", type=int, help="Bytes of each member's messages, default 16 GiB.")
@click.option("--member-topics", type=int, help="Topics and queues that each member creates, default 1000.")
@click.option("--member-subscriptions", type=int, help="Subscriptions of each member, default 10000.")
@click.option("--member-invites", type=int, help="Open invites of each member, default 1000.")
@click.option("--audit-retention-days", type=int, help="How long audit events are kept, default 365.")
@click.option("--audit-events", type=int, help="How many audit events are kept, default 100000.")
@admin_options
@json_option
def set_mesh(slug: str, as_json: bool, **options: Any) -> int:
    """Change a mesh's policies; connections made from then on go by them."""
    changes = {name: options.pop(name) for name in _POLICIES}
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        raise click.UsageError("Say what to set: see --help.")
    answer = AdminClient(**options).post("meshes/set", {"mesh": slug, **given})
    return output.tell(as_json, answer, f"set {', '.join(given)} of {slug}")
