"""`claudemesh broker check`."""

from __future__ import annotations

from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.broker.admin import AdminClient, admin_options
from claudemesh.cli.options import json_option


@click.command()
@admin_options
@json_option
@answers.exits({1: "A message is not complete."})
@answers.one(job="string", count="integer", found="integer", findings="array")
def check(as_json: bool, **which: Any) -> int:
    """Check that every stored message is complete. The exit code is 1 when one is not.

    A message is complete when its history, its deliveries and its dedupe record exist together. The check
    reads in small batches beside the running broker.

    \b
    Examples:
      claudemesh broker check
    """
    from claudemesh.protocol.http_replies import check_report

    answer = AdminClient(**which).ask("jobs/run", {"job": "orphan-check"}, check_report)
    if as_json:
        output.print_json(answer)
    else:
        for finding in answer["findings"]:
            output.say(f"{finding['kind']}  {finding['broker_message_id']}")
        output.say(f"checked {answer['count']} rows, found {answer['found']} faults")
    return 1 if answer["found"] else 0
