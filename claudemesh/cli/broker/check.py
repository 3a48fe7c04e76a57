"""`claudemesh broker check`."""

from __future__ import annotations

from typing import Any

import click

from claudemesh.cli import output
from claudemesh.cli.broker.admin import AdminClient, admin_options
from claudemesh.cli.options import json_option


@click.command()
@admin_options
@json_option
def check(as_json: bool, **which: Any) -> int:
    """Hold every message to what an accept leaves behind; exit 1 when something is missing or left over.

    It reads in small batches, and slows nobody down.
    """
    from claudemesh.protocol.http_replies import check_report

    answer = AdminClient(**which).ask("jobs/run", {"job": "orphan-check"}, check_report)
    if as_json:
        output.print_json(answer)
    else:
        for finding in answer["findings"]:
            output.say(f"{finding['kind']}  {finding['broker_message_id']}")
        output.say(f"looked at {answer['count']} rows, found {answer['found']}")
    return 1 if answer["found"] else 0
