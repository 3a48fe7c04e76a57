"""The text of a message on the command line: an argument, or standard input."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def text_argument(function: F) -> F:
    """Add TEXT and --allow-empty; `message_text` reads them."""
    option = click.option("--allow-empty", is_flag=True, help="Send an empty text from standard input.")
    argument = click.argument("text", required=False)
    return argument(option(function))


def message_text(text: str | None, *, allow_empty: bool) -> str:
    """Return the text of the argument, or standard input when the argument is `-` or missing.

    Empty standard input is refused unless `allow_empty`, because a failed command in a pipe produces it.
    """
    if text is not None and text != "-":
        return text
    raw = sys.stdin.buffer.read()
    if not raw and not allow_empty:
        raise click.UsageError("Standard input is empty. Nothing was sent. Use --allow-empty to send it.")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError("The text on standard input is not UTF-8. Nothing was sent.") from error


class NotSent(click.UsageError):
    """Error for a word that begins with a dash, parsed as an option but perhaps meant as the text.
    `next_command` is the command that sends it."""

    def __init__(
        self, message: str, ctx: click.Context, args: list[str], word: str, near: Sequence[str] | None = None
    ) -> None:
        super().__init__(message, ctx)
        others = [other for other in args if other != word]
        self.next_command = shlex.join([*ctx.command_path.split(), *others, "--", word])
        self.possibilities = near


class TextCommand(click.Command):
    """A command that takes a text, which may begin with a dash.

    A word that begins with a dash and contains a space is a text, because no option does. Any other such
    word is an option, and the error for an unknown one names the `--` that makes it a text. `--help` after
    an argument may be either: the help is shown, and the exit code shows that nothing was sent.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `--` before a text that would be parsed as an option."""
        given = list(args)
        try:
            return super().parse_args(ctx, self._with_texts_last(args))
        except click.exceptions.NoSuchOption as error:
            text = f"{error.message} A text that begins with - goes behind --."
            raise NotSent(text, ctx, given, error.option_name, error.possibilities) from None
        except click.exceptions.Exit:
            word = next((word for word in given[1:] if word in ctx.help_option_names), None)
            if word is None or given[0].startswith("-"):
                raise
            raise NotSent(f"Nothing was sent. A text {word} goes behind --.", ctx, given, word) from None

    def _with_texts_last(self, args: list[str]) -> list[str]:
        valued = {
            name
            for parameter in self.params
            if isinstance(parameter, click.Option) and not parameter.is_flag
            for name in parameter.opts
        }
        words: list[str] = []
        texts: list[str] = []
        rest = iter(args)
        for word in rest:
            if word == "--":
                texts += rest
            elif word in valued:
                words += [word, *islice(rest, 1)]
            elif word.startswith("-") and " " in word and word.partition("=")[0] not in valued:
                texts.append(word)
            else:
                words.append(word)
        return [*words, "--", *texts] if texts else words
