"""A group of commands: it knows habits of other tools, and answers a wrong name with near ones."""

from __future__ import annotations

from typing import NoReturn

import click

from claudemesh.cli.display import with_display_options

# Habits of other tools -> the name here.
ALIASES = {"ls": "list", "open": "web"}
# The command that a group without a command runs, where the group is itself a list.
_OWN_LIST = "list"


class UnknownCommand(click.exceptions.NoSuchCommand):
    """A name that no command of a group has, with near names and the command that goes on from there."""

    def __init__(self, name: str, near: list[str], ctx: click.Context) -> None:
        super().__init__(name, ctx=ctx)
        self.near = near
        self.next_command = f"claudemesh {near[0]} --help" if near else f"{ctx.command_path} --help"


class CommandGroup(click.Group):
    """A group whose command `list` is also found as `ls`. A group that lists by itself has both names too."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a name or of its alias, with the options that every command accepts."""
        name = ALIASES.get(cmd_name, cmd_name)
        found = self.find(ctx, cmd_name) or self.find(ctx, name)
        if found is None and name == _OWN_LIST and self.invoke_without_command:
            found = click.Command(cmd_name, callback=self.callback, params=list(self.params), help=self.help)
        return None if found is None else with_display_options(found)

    def find(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return the command of exactly this name."""
        return super().get_command(ctx, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the arguments; an unknown name is answered with near ones of all groups."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            self.refuse(ctx, error.command_name)

    def refuse(self, ctx: click.Context, name: str) -> NoReturn:
        """Raise `UnknownCommand` for a name."""
        # Imported here: only a wrong name needs all commands.
        from claudemesh.cli.near_commands import near_commands

        raise UnknownCommand(name, near_commands(ctx, ALIASES.get(name, name)), ctx) from None
