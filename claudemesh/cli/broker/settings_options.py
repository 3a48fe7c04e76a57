"""Options of `claudemesh broker up`, made from the table of a broker's settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from claudemesh.broker.settings import TABLE
from claudemesh.cli.options import VariableOption
from claudemesh.runtime.settings.keys import Key
from claudemesh.runtime.settings.rules import OneOf

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(function: F) -> F:
    """Add an option for each key that has a flag. The value of an option that is not given is None, or ()
    for a repeatable one."""
    for key in reversed(TABLE.keys):
        if key.flag is not None:
            function = _option(key)(function)
    return function


def _option(key: Key) -> Callable[[F], F]:
    assert key.flag is not None
    text = key.text.replace("`", "")
    if key.flag.metavar is None:
        return click.option(
            key.option,
            key.field,
            cls=VariableOption,
            variable=str(TABLE.variable(key)),
            is_flag=True,
            flag_value=not key.default(),
            default=None,
            help=text,
        )
    default = key.default_text or key.default()
    if default and default != "none":
        text += f" Default: {str(default).replace('`', '')}."
    if key.flag.repeated:
        text += " May be repeated."
    kind = click.Choice(key.rule.choices) if isinstance(key.rule, OneOf) else None
    metavar = None if kind else key.flag.metavar
    return click.option(
        key.option,
        key.field,
        cls=VariableOption,
        variable=str(TABLE.variable(key)),
        type=kind,
        metavar=metavar,
        multiple=key.flag.repeated,
        help=text,
    )
