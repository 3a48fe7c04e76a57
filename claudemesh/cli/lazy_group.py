"""A group of commands that imports a command when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import click

from claudemesh.cli.command_group import CommandGroup

# Heading -> name of a command -> (module of `claudemesh.cli`, attribute, one line of help).
Table: TypeAlias = Mapping[str, Mapping[str, tuple[str, str, str]]]


class LazyGroup(CommandGroup):
    """A group made from a table. Its help imports no command, and each command imports only itself."""

    def __init__(self, *args: Any, table: Table, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table
        self._rows = {name: row for commands in table.values() for name, row in commands.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(self._rows)

    def find(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one command."""
        found = self._rows.get(name)
        if found is None:
            return None
        module = importlib.import_module(f"claudemesh.cli.{found[0]}")
        command: click.Command = getattr(module, found[1])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, under its headings."""
        width = max(map(len, self._rows))
        for heading, commands in self._table.items():
            with formatter.section(heading):
                # One width for all headings, so that their columns stand under each other.
                formatter.write_dl([(name.ljust(width), row[2]) for name, row in commands.items()])
