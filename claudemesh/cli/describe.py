"""`claudemesh describe`."""

from __future__ import annotations

from typing import Any

import click

import claudemesh
from claudemesh.cli import answers, output
from claudemesh.cli.command_group import UnknownCommand
from claudemesh.cli.description import describe as description_of
from claudemesh.cli.description import error_fields, exit_codes, option_of, path_of, walk
from claudemesh.cli.near_commands import near_commands
from claudemesh.cli.options import json_option
from claudemesh.cli.output import Column


@click.command("describe")
@click.argument("names", nargs=-1, metavar="[COMMAND]...")
@json_option
@answers.beside_items(version="string", options="array", error_fields="array", exit_codes="array")
@answers.items(
    command="string",
    summary="string",
    usage="string",
    help="string",
    arguments="array",
    options="array",
    answer="object?",
    exit_codes="array",
)
@click.pass_context
def describe(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Describe commands for programs: arguments, options, fields of the answers and exit codes.

    COMMAND is a command or a group of them. Without it, all commands are described. The description is made
    from the commands themselves.

    \b
    Examples:
      claudemesh describe
      claudemesh describe send --json
      claudemesh describe --json | jq -r '.items[].usage'
    """
    root = ctx.find_root()
    found = [context for context in walk(root) if path_of(context)[: len(names)] == names]
    if not found:
        raise _unknown(root, names)
    if as_json:
        _print_json(root, found)
    elif len(found) == 1:
        output.say(_page(found[0]))
    else:
        rows = [(" ".join(path_of(each)), each.command.get_short_help_str(limit=1000)) for each in found]
        output.table(("command", Column("does", "body")), rows)


def _unknown(root: click.Context, names: tuple[str, ...]) -> click.UsageError:
    """Return the error for names without a command; its next command describes the nearest one."""
    ctx = root
    for name in names:
        group = ctx.command
        found = group.get_command(ctx, name) if isinstance(group, click.Group) else None
        if found is None:
            error = UnknownCommand(name, near_commands(ctx, name), ctx)
            error.next_command = (
                f"claudemesh describe {error.near[0]}" if error.near else "claudemesh describe"
            )
            return error
        ctx = click.Context(found, info_name=name, parent=ctx)
    return click.UsageError(f"{ctx.command_path} cannot be described.", root)


def _print_json(root: click.Context, found: list[click.Context]) -> None:
    options = [option for option in root.command.get_params(root) if isinstance(option, click.Option)]
    output.print_items(
        [description_of(context) for context in found],
        version=claudemesh.__version__,
        options=[option_of(option) for option in options],
        error_fields=error_fields(),
        exit_codes=exit_codes({}),
    )


def _page(context: click.Context) -> str:
    described = description_of(context)
    lines = [context.get_help(), "", f"JSON: {_shape(described['answer'])}"]
    lines += [f"  {field['name']}: {_type(field)}" for field in (described["answer"] or {}).get("fields", ())]
    lines += ["", "Exit codes:"]
    lines += [f"  {code['code']:>3}  {code['meaning']}" for code in described["exit_codes"]]
    return "\n".join(lines)


def _shape(answer: dict[str, Any] | None) -> str:
    kinds = {
        "one": "an object",
        "action": "an object, and `next` with the commands that make sense now",
        "items": "a list; each of its `items`",
        "lines": "an object a line",
        "none": "none",
    }
    shape = kinds["none" if answer is None else answer["kind"]]
    beside = ", ".join(field["name"] for field in answer["beside_items"]) if answer else ""
    others = f" {answer['others']}" if answer and answer["others"] else ""
    return f"{shape}.{f' Beside the items: {beside}.' if beside else ''}{others}"


def _type(field: dict[str, Any]) -> str:
    null = " or null" if field["nullable"] else ""
    return f"{field['type']}{null}{', may be missing' if field['optional'] else ''}"
