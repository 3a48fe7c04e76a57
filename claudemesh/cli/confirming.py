"""A question before a command deletes something for good."""

from __future__ import annotations

import sys

import click

from claudemesh.cli import output
from claudemesh.client.errors import WrongUse


def confirm(what: str, *, yes: bool) -> None:
    """Say what happens, and ask for a yes. Without a terminal --yes has to be given.

    Raise `WrongUse` confirmation_needed, and `click.Abort` for a no.
    """
    if not yes and not sys.stdin.isatty():
        raise WrongUse("confirmation_needed", f"{what} Nothing was changed. Confirm it with --yes.")
    output.note(what)
    if not yes:
        click.confirm("Go on?", abort=True, err=True)
