"""`claudemesh version`."""

from __future__ import annotations

import platform

import click

import claudemesh
from claudemesh.cli import output
from claudemesh.cli.options import json_option


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Show the version.

    \b
    Examples:
      claudemesh version --json | jq -r .version
    """
    say_version(as_json=as_json)


def say_version(*, as_json: bool = False) -> None:
    """Print the version, for `version` and `--version`."""
    found = {"version": claudemesh.__version__, "python": platform.python_version(), "protocol": [1]}
    if as_json:
        output.print_json(found)
    else:
        output.say(f"claudemesh {found['version']} (Python {found['python']})")
