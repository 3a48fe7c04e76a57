"""`claudemesh broker job`."""

from __future__ import annotations

from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.broker.admin import AdminClient, admin_options, print_list
from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.options import json_option
from claudemesh.client.errors import ApiError


@click.group(cls=CommandGroup)
def job() -> None:
    """List and run maintenance jobs. A broker runs them by itself.

    \b
    Examples:
      claudemesh broker job list
      claudemesh broker job run message-sweep
    """


@job.command("list")
@admin_options
@json_option
@answers.items(
    job="string", every_s="integer", last_run_at="time?", age_s="integer?", count="integer?", found="integer?"
)
def list_jobs(as_json: bool, **which: Any) -> None:
    """List the jobs with their last run.

    `last_run_at` is the time of the last run. `age_s` is the running time of the broker since then, in
    seconds.

    \b
    Examples:
      claudemesh broker job list
    """
    columns = ("job", "every_s", "last_run_at", "age_s", "count", "found")
    print_list(AdminClient(**which), as_json, "jobs", columns)


@job.command("run")
@click.argument("name")
@admin_options
@json_option
@answers.action(job="string", count="integer", found="integer", findings="array")
def run_job(name: str, as_json: bool, **which: Any) -> int:
    """Run a job now, and wait for its end.

    `claudemesh broker job list` shows the names.

    \b
    Examples:
      claudemesh broker job run message-sweep
    """
    client = AdminClient(**which)
    try:
        answer = client.post("jobs/run", {"job": name}, "count")
    except ApiError as error:
        raise client.about_job(name, error) from error
    return output.print_answer(as_json, answer, f"{name}: {answer['count']}")
