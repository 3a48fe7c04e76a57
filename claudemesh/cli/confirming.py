"""A question before a command deletes something for good."""

from __future__ import annotations

import sys

import click

from claudemesh.cli import output
from claudemesh.cli.next_commands import advised, again
from claudemesh.client.errors import WrongUse


def no_terminal(what: str) -> click.UsageError:
    """Return the error of a question without a terminal; --yes is the answer to it."""
    error = click.UsageError(f"There is no terminal to ask on. Add --yes to {what} without asking.")
    return advised(error, again(sys.argv[1:], "--yes"))


def confirm(what: str, *, yes: bool) -> None:
    """Say what happens, and ask for a yes. Without a terminal --yes has to be given.

    Raise `WrongUse` confirmation_needed, and `click.Abort` for a no.
    """
    if not yes and not sys.stdin.isatty():
        raise WrongUse(
            "confirmation_needed",
            f"{what} Nothing was changed. Confirm it with --yes.",
            next=again(sys.argv[1:], "--yes"),
        )
    output.note(what)
    if not yes:
        click.confirm("Go on?", abort=True, err=True)
