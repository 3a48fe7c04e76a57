"""`claudemesh broker audit`."""

from __future__ import annotations

from typing import Any

import click

from claudemesh.cli import answers
from claudemesh.cli.broker.admin import AdminClient, admin_options, print_list
from claudemesh.cli.options import json_option


@click.command()
@click.argument("slug")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Number of events."
)
@admin_options
@json_option
@answers.items(kind="string", member_id="string?", created_at="time", data="object")
def audit(slug: str, limit: int, as_json: bool, **which: Any) -> None:
    """Show the audit events of a mesh. The newest event is the first.

    \b
    Examples:
      claudemesh broker audit team --limit 20
    """
    columns = ("created_at", "kind", "member_id", "data")
    print_list(AdminClient(**which), as_json, "audit", columns, mesh=slug, limit=limit)
