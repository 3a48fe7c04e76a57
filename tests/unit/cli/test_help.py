"""Help pages: readable at 80 columns, with an example, and the same sentence in the list of commands."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from claudemesh.cli.command_group import CommandGroup
from claudemesh.cli.lazy_group import LazyGroup
from claudemesh.cli.main import cli

COLUMNS = 80
_SETTINGS = {"terminal_width": COLUMNS, "help_option_names": ["-h", "--help"]}


def contexts(command: click.Command, context: click.Context) -> Iterator[click.Context]:
    """The context of a command and of every command below it."""
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            yield from contexts(below, click.Context(below, parent=context, info_name=name, **_SETTINGS))


EVERY = list(contexts(cli, click.Context(cli, info_name="claudemesh", **_SETTINGS)))


def test_every_group_knows_habits_and_near_names() -> None:
    """A plain group of click would not."""
    groups = [context for context in EVERY if isinstance(context.command, click.Group)]
    assert [group.command_path for group in groups if not isinstance(group.command, CommandGroup)] == []


def first_sentence(command: click.Command) -> str:
    """The sentence that a page begins with."""
    paragraph = " ".join((command.help or "").partition("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", paragraph)[0]


@pytest.mark.parametrize("context", EVERY, ids=lambda context: context.command_path)
def test_a_page_fits_a_terminal_of_80_columns(context: click.Context) -> None:
    """Examples, which are not wrapped, included."""
    assert [line for line in context.get_help().splitlines() if len(line) > COLUMNS] == []


@pytest.mark.parametrize("context", EVERY, ids=lambda context: context.command_path)
def test_a_page_has_an_example_of_its_command(context: click.Context) -> None:
    """A line that can be copied."""
    examples = re.findall(r"^    .*\bclaudemesh [^\n]+", context.get_help(), re.MULTILINE)
    assert any(f" {context.info_name}" in line or context is EVERY[0] for line in examples)


@pytest.mark.parametrize("context", EVERY, ids=lambda context: context.command_path)
def test_every_option_says_what_it_does(context: click.Context) -> None:
    """No option stands there with its name alone."""
    options = [option for option in context.command.params if isinstance(option, click.Option)]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize(
    "context",
    [context for context in EVERY if isinstance(context.command, LazyGroup)],
    ids=lambda context: context.command_path,
)
def test_the_list_of_commands_says_what_their_pages_say(context: click.Context) -> None:
    """The line in the list, which imports no command, is the first sentence of the page."""
    group = context.command
    assert isinstance(group, LazyGroup)
    listed = {name: row[2] for rows in group._table.values() for name, row in rows.items()}
    pages = {name: group.get_command(context, name) for name in listed}
    assert {name: first_sentence(page) for name, page in pages.items() if page} == listed
