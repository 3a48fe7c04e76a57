"""`claudemesh broker config`."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import click

from claudemesh.broker.settings import TABLE, read_settings, settings_file
from claudemesh.cli import answers, output
from claudemesh.cli.broker.settings_options import settings_options
from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.options import json_option
from claudemesh.cli.settings_output import check as run_check
from claudemesh.cli.settings_output import print_checks, print_rows, public, rows


@click.group(cls=CommandGroup)
def config() -> None:
    """Check and show the settings of a broker.

    Flags, environment variables and broker.toml are merged as by `claudemesh broker up`, so these commands
    take its options too.

    \b
    Examples:
      claudemesh broker config check
      claudemesh broker config show --origin
    """


@config.command()
@settings_options
@json_option
@answers.exits({78: "There is a fault."})
@answers.items(file="string", exists="boolean", faults="array")
def check(as_json: bool, **flags: Any) -> int:
    """Check the settings that a broker would start with, and list every fault.

    The exit code is 78 when there is a fault.

    \b
    Examples:
      claudemesh broker config check --data-dir /var/lib/claudemesh
    """
    path = settings_file(flags, os.environ)
    result = run_check(str(path), lambda: read_settings(flags, os.environ).faults)
    return print_checks([replace(result, exists=path.exists())], as_json=as_json)


@config.command()
@click.option("--origin", is_flag=True, help="Show where each value comes from.")
@settings_options
@json_option
@answers.exits({78: "There is a fault."})
@answers.beside_items(file="string", exists="boolean")
@answers.items(**answers.SETTING)
def show(origin: bool, as_json: bool, **flags: Any) -> int:
    """Show the settings that a broker would start with. Secrets are not shown.

    \b
    Examples:
      claudemesh broker config show --origin
      claudemesh broker config show --origin --data-dir /var/lib/claudemesh
    """
    path = settings_file(flags, os.environ)
    merged = read_settings(flags, os.environ)
    if merged.faults:
        return print_checks([run_check(str(path), lambda: merged.faults)], as_json=as_json)
    items = rows(TABLE, merged)
    if as_json:
        shown = [public(item) for item in items]
        output.print_items(shown, file=str(path), exists=path.exists())
    else:
        print_rows(items, with_origin=origin)
    return 0
