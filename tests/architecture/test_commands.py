"""The grammar of the command line, held for every command: --json, a declared answer, options of all."""

from __future__ import annotations

import click
import pytest

from claudemesh.cli.answers import declared
from claudemesh.cli.description import answer_of, describe, path_of, walk
from claudemesh.cli.main import cli

ROOT = click.Context(cli, info_name="claudemesh")
EVERY = {" ".join(path_of(context)): context for context in walk(ROOT)}


def typed(parameter: click.Parameter) -> list[str]:
    """The spellings of an option, and of its opposite."""
    return [*parameter.opts, *parameter.secondary_opts]


def names(context: click.Context) -> set[str]:
    """The options of a command as they are typed."""
    return {
        name for parameter in context.command.params for name in [*parameter.opts, *parameter.secondary_opts]
    }


def test_every_command_is_walked() -> None:
    """Also commands of groups of groups, and groups that are commands too."""
    assert {"send", "inbox", "inbox show", "daemon outbox", "broker mesh set", "describe"} <= EVERY.keys()


@pytest.mark.parametrize("path", EVERY)
def test_every_command_declares_its_answer_in_json(path: str) -> None:
    """By `one`, `action`, `items`, `lines` or `none` of claudemesh/cli/answers.py, below its options."""
    answer = declared(EVERY[path].command.callback)
    assert answer is not None, f"{path} has no declaration of claudemesh/cli/answers.py"
    assert answer_of(answer)["kind"] == answer.kind
    assert ("--json" in names(EVERY[path])) is (answer.kind != "none")


@pytest.mark.parametrize("path", EVERY)
def test_the_options_of_every_command_stand_before_and_after_its_name(path: str) -> None:
    """Each group adds them to the commands that it finds."""
    assert {"--quiet", "-q", "--no-color", "--no-headers"} <= names(EVERY[path])
    assert {"--quiet", "-q", "--no-color", "--no-headers"} <= names(ROOT)


@pytest.mark.parametrize("path", EVERY)
def test_every_command_is_described(path: str) -> None:
    """Its arguments, options, answer and exit codes; options that all commands have are described once."""
    described = describe(EVERY[path])
    shown = {name for option in described["options"] for name in option["names"]}
    hidden = {
        name
        for parameter in EVERY[path].command.params
        if isinstance(parameter, click.Option) and parameter.hidden
        for name in parameter.opts
    }
    assert shown == {name for name in names(EVERY[path]) if name.startswith("-")} - hidden
    assert all(option["help"] for option in described["options"])
    assert {code["code"] for code in described["exit_codes"]} >= {0, 64, 70, 130}
    arguments = [
        parameter for parameter in EVERY[path].command.params if isinstance(parameter, click.Argument)
    ]
    assert len(described["arguments"]) == len(arguments)
