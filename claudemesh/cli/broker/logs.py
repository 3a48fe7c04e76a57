"""`claudemesh broker logs`."""

from __future__ import annotations

from pathlib import Path

import click

from claudemesh.cli import answers
from claudemesh.cli.broker.admin import data_dir_option
from claudemesh.cli.log_view import LogFilter, log_options, show_log
from claudemesh.cli.options import json_option
from claudemesh.client.own_broker import LOG_FILE, chosen_data_dir


@click.command()
@log_options
@data_dir_option
@json_option
@answers.others("The fields of the event.")
@answers.lines(ts="time", level="string", event="string", logger="string*")
def logs(
    follow: bool,
    lines: int | None,
    since: str | None,
    level: str | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Show the log of the broker of this host.

    Only a broker in the background (`broker up -d`) writes this file. One in the foreground logs to its
    stderr.

    \b
    Examples:
      claudemesh broker logs -f
      claudemesh broker logs --since 1h --level warning
      claudemesh broker logs --data-dir /var/lib/claudemesh
    """
    path = chosen_data_dir(data_dir) / LOG_FILE
    wanted = LogFilter(since, level)
    show_log(path, name="broker", follow=follow, lines=lines, wanted=wanted, as_json=as_json)
