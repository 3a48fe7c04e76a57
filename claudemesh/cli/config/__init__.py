"""The group `claudemesh config`: the configuration files of this host."""

from __future__ import annotations

import click

from claudemesh.cli.lazy_group import LazyGroup

COMMANDS = {
    "Commands": {
        "check": ("config.check", "check", "Check the configuration files, and list every fault."),
        "show": ("config.show", "show", "Show the settings of the daemon."),
    },
}


@click.group(cls=LazyGroup, table=COMMANDS)
def config() -> None:
    """Check the configuration files, and show the settings of the daemon.

    The files are config.toml, hooks.toml and broker.toml. docs/configuration.md lists their keys.

    \b
    Examples:
      claudemesh config check
      claudemesh config show --origin
    """
