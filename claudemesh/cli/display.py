"""The display of output: options that every command accepts, and the terminal that shows it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from typing import TextIO

import click


class Display:
    """The choices of one run of the command line."""

    def __init__(self) -> None:
        # Only results and errors are printed: no notes, and of a list only names or ids.
        self.quiet = False
        self.colour = True
        # Whether tables begin with the names of their columns.
        self.headers = True

    def reset(self) -> None:
        """Return to the defaults."""
        self.__init__()  # type: ignore[misc]

    def has_colour(self, stream: TextIO) -> bool:
        """Whether text on this stream may have colours."""
        return (
            self.colour
            and stream.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
        )


display = Display()


def is_terminal() -> bool:
    """Whether results go to a terminal."""
    return sys.stdout.isatty()


def columns() -> int:
    """Return the width of the terminal; COLUMNS overrides it."""
    return shutil.get_terminal_size().columns


def wrapped(text: str, stream: TextIO, *, hanging: int = 0) -> str:
    """Return sentences broken between words for a terminal; lines after the first are indented by `hanging`.

    Elsewhere the text is unchanged, and so is a line that is no longer than the terminal is wide, or that
    holds a command (`next:`, `try:`): a command is pasted as it is.
    """
    if not stream.isatty():
        return text
    # Imported here: most output is no terminal's.
    import textwrap

    width = max(columns(), 2 * hanging + 20)
    lines = []
    for line in text.split("\n"):
        if len(line) <= width or line.lstrip().startswith(("next:", "try:")):
            lines.append(line)
        else:
            wrapper = textwrap.TextWrapper(
                width, subsequent_indent=" " * hanging, break_long_words=False, break_on_hyphens=False
            )
            lines += wrapper.wrap(line)
    return "\n".join(lines)


def _flag(names: list[str], text: str, choose: Callable[[], None], *, hidden: bool) -> click.Option:
    def take(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            choose()

    return click.Option(
        names, is_flag=True, is_eager=True, expose_value=False, callback=take, help=text, hidden=hidden
    )


def display_options(*, hidden: bool) -> list[click.Option]:
    """Return the options that every command accepts. Only the page of `claudemesh` itself lists them."""
    return [
        _flag(
            ["-q", "--quiet"],
            "Print results and errors only: no notes, and of a list only its names or ids.",
            lambda: setattr(display, "quiet", True),
            hidden=hidden,
        ),
        _flag(
            ["--no-headers"],
            "Print tables without the names of their columns.",
            lambda: setattr(display, "headers", False),
            hidden=hidden,
        ),
        _flag(
            ["--no-color"],
            "Print no colors, as with the variable NO_COLOR.",
            lambda: setattr(display, "colour", False),
            hidden=hidden,
        ),
    ]


def with_display_options(command: click.Command, *, hidden: bool = True) -> click.Command:
    """Add the options that every command accepts, unless the command has them."""
    known = {name for parameter in command.params for name in parameter.opts}
    command.params += [option for option in display_options(hidden=hidden) if option.opts[-1] not in known]
    return command


def take_colour(argv: list[str]) -> None:
    """Apply --no-color to the error of arguments that could not be parsed."""
    if "--no-color" in argv:
        display.colour = False
