"""`claudemesh help`."""

from __future__ import annotations

import click

from claudemesh.cli import answers, output
from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.options import json_option
from claudemesh.runtime import exits

EXIT_CODES_TOPIC = "exit-codes"
_COLUMNS = 80
# Code, name, meaning and what to do.
EXIT_CODES = (
    (exits.OK, "done", "A reader of the output that leaves early is no error."),
    (1, "found", "`broker check` has found messages that are not complete."),
    (exits.USAGE, "usage", "The arguments are wrong, or name a member or message that there is not."),
    (exits.UNAVAILABLE, "unavailable", "A daemon, broker or member is not there. A check has failed."),
    (exits.INTERNAL, "internal", "An internal error, or a disk that fails. The log tells more."),
    (exits.CANNOT_CREATE, "cannot create", "A file or the output cannot be written. Another daemon runs."),
    (exits.TEMPORARY, "temporary", "Time, disk or a limit is used up. Try again later, with the same id."),
    (exits.PERMISSION, "permission", "The broker refuses this member. Another user could change a file."),
    (exits.CONFIGURATION, "configuration", "A setting, an address or the mesh of this host is wrong."),
    (exits.INTERRUPTED, "interrupted", "Ctrl-C has ended the command."),
)


@click.command("help")
@click.argument("names", nargs=-1, metavar="[COMMAND]...")
@json_option
@click.pass_context
@answers.others("`help exit-codes`: a list with code, name and meaning.")
@answers.action(command="string", help="string")
def show_help(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> int:
    """Show the help of a command, or the list of exit codes.

    COMMAND is a command with the groups before it, or `exit-codes`.

    \b
    Examples:
      claudemesh help
      claudemesh help daemon up
      claudemesh help exit-codes
    """
    if names == (EXIT_CODES_TOPIC,):
        return _show_exit_codes(as_json)
    text = _page(ctx.find_root(), names)
    return output.print_answer(as_json, {"command": " ".join(("claudemesh", *names)), "help": text}, text)


def _page(ctx: click.Context, names: tuple[str, ...]) -> str:
    for name in names:
        group = ctx.command
        if not isinstance(group, CommandGroup):
            raise click.UsageError(f"{ctx.command_path} has no command {name!r} below it.", ctx)
        found = group.get_command(ctx, name)
        if found is None:
            group.refuse(ctx, name)
        ctx = click.Context(found, info_name=found.name, parent=ctx)
    return ctx.get_help()


def _show_exit_codes(as_json: bool) -> int:
    if as_json:
        items = [{"code": code, "name": name, "meaning": meaning} for code, name, meaning in EXIT_CODES]
        output.print_items(items)
        return 0
    formatter = click.HelpFormatter(width=_COLUMNS)
    formatter.write_dl([(f"{code:>3} {name}", meaning) for code, name, meaning in EXIT_CODES])
    output.say(formatter.getvalue().rstrip("\n"))
    return 0
