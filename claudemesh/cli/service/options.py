"""Options that the commands of services share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def manager_option(function: F) -> F:
    """Add `--system` and `--user`, which choose the service manager."""
    return click.option(
        "--system/--user",
        "is_system",
        default=None,
        help="Service manager: the system's, or that of this user. Default: the system's for root.",
    )(function)


def install_options(function: F) -> F:
    """Add the options of an installation."""
    for option in (
        click.option("--allow-ci-persistent", "in_ci", is_flag=True, help="Install also in a CI job."),
        click.option("--now", is_flag=True, help="Start the service too, or start it again."),
        click.option("--print", "only_print", is_flag=True, help="Print the file and install nothing."),
        manager_option,
    ):
        function = option(function)
    return function
