"""`claudemesh broker config`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from claudemesh.broker.settings import TABLE, read_settings, settings_file
from claudemesh.cli import answers, output
from claudemesh.cli.broker.settings_options import settings_options
from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.options import json_option
from claudemesh.cli.settings_output import check as run_check
from claudemesh.cli.settings_output import print_checks, print_rows, public, rows
from claudemesh.client.errors import WrongHome
from claudemesh.client.own_broker import find_broker
from claudemesh.runtime.settings.merge import Merged, plain, toml


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
@answers.beside_items(file="string", exists="boolean", running="object")
@answers.items(**answers.SETTING)
def show(origin: bool, as_json: bool, **flags: Any) -> int:
    """Show the settings that a broker would start with. Secrets are not shown.

    A broker that runs with this data directory may have others, by options or variables of its own. Those
    that differ follow.

    \b
    Examples:
      claudemesh broker config show --origin
      claudemesh broker config show --origin --data-dir /var/lib/claudemesh
    """
    path = settings_file(flags, os.environ)
    merged = read_settings(flags, os.environ)
    if merged.faults:
        return print_checks([run_check(str(path), lambda: merged.faults)], as_json=as_json)
    items, other = rows(TABLE, merged), _other_settings(merged)
    if as_json:
        shown = [public(item) for item in items]
        output.print_items(shown, file=str(path), exists=path.exists(), running=other)
        return 0
    print_rows(items, with_origin=origin)
    if other:
        listed = ", ".join(f"{name} = {toml(value)}" for name, value in other.items())
        output.note(
            "The broker that runs here was started with other options, variables or an older broker.toml. "
            f"It has {listed}."
        )
    return 0


def _other_settings(merged: Merged) -> dict[str, Any]:
    """Return the settings of the broker that runs with the data directory, as far as they differ."""
    try:
        found = find_broker(Path(str(merged.given["data_dir"].value)))
    except WrongHome:
        return {}
    shown = {key.label: plain(merged.given[key.field].value) for key in TABLE.keys}
    running = {} if found is None else found.settings
    return {name: value for name, value in running.items() if name in shown and shown[name] != value}
