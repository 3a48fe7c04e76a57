"""`claudemesh version`."""

from __future__ import annotations

import platform
from typing import Any

import click

import claudemesh
from claudemesh.cli import output
from claudemesh.cli.options import json_option

_SHOWN_COMMIT = 12


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Show the version, its commit, the platform, the Python, and how it is installed.

    \b
    Examples:
      claudemesh version --json | jq -r .commit
    """
    say_version(as_json=as_json)


def say_version(*, as_json: bool = False) -> None:
    """Print the version, for `version` and `--version`."""
    found = _facts()
    if as_json:
        output.print_json(found)
        return
    commit = found["commit"]
    of = "" if commit is None else f"commit {commit[:_SHOWN_COMMIT]}{'+' if '+' in commit else ''}, "
    output.say(
        f"claudemesh {found['version']} ({of}Python {found['python']}, {found['platform']}, "
        f"{found['installed']})"
    )


def _facts() -> dict[str, Any]:
    # Imported here: `send` loads this module's group, and needs none of it.
    from claudemesh.home.installation import commit, installed_as

    return {
        "version": claudemesh.__version__,
        "commit": commit(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "installed": installed_as(),
        "protocol": [1],
    }
