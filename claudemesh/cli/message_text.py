"""The text of a message on the command line: an argument, a file, or standard input."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click

from claudemesh.cli import output
from claudemesh.cli.next_commands import advised, again

F = TypeVar("F", bound=Callable[..., Any])

# The daemon takes no longer text.
_MOST_BYTES = 16 << 20


def text_argument(function: F) -> F:
    """Add TEXT, --file and --allow-empty; `message_text` reads them."""
    option = click.option("--allow-empty", is_flag=True, help="Send an empty text.")
    file = click.option(
        "--file",
        type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
        metavar="FILE",
        help="Read the text from a file.",
    )
    argument = click.argument("text", required=False)
    return argument(file(option(function)))


def message_text(text: str | None, file: Path | None, *, allow_empty: bool) -> str:
    """Return the text of the argument or of the file, else standard input.

    Standard input is meant by `-` too. An empty text is refused unless `allow_empty`, because a command
    that has failed or a variable that is not set produces it.
    """
    if text is not None and file is not None:
        raise click.UsageError("Give the text or --file, not both. Nothing was sent.")
    if text is not None and text != "-":
        if not text and not allow_empty:
            raise _is_empty("The text")
        _note_file(text)
        return text
    is_pipe = file is None or str(file) == "-"
    place = "standard input" if is_pipe else str(file)
    raw = sys.stdin.buffer.read() if file is None or is_pipe else _read(file)
    if not raw and not allow_empty:
        raise _is_empty(f"{place[0].upper()}{place[1:]}")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"The text of {place} is not UTF-8. Nothing was sent. Send a file as it is with "
            "`claudemesh file send`."
        ) from error


def _is_empty(place: str) -> click.UsageError:
    error = click.UsageError(f"{place} is empty. Nothing was sent. Use --allow-empty to send it.")
    return advised(error, again(sys.argv[1:], "--allow-empty"))


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            raw = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}. Nothing was sent.") from error
    if len(raw) > _MOST_BYTES:
        raise click.UsageError(
            f"{file} is larger than {_MOST_BYTES} bytes, more than any message. Nothing was sent. "
            "Send it as a file with `claudemesh file send`."
        )
    return raw


def _note_file(text: str) -> None:
    """Say that a text such as `@notes.txt` is no name of a file here, where there is such a file.

    A text may come from a variable that another person has filled, which must not choose a file to send.
    """
    if not text.startswith("@") or " " in text or "\n" in text:
        return
    try:
        is_file = Path(text[1:]).is_file()
    except (OSError, ValueError):
        return
    if is_file:
        output.note(
            f"The text {text} is sent as it is. To send the file, use --file {shlex.quote(text[1:])}."
        )


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


class SeveralWords(click.UsageError):
    """Error for a text of several words without quotation marks. `next_command` sends it as one text."""

    def __init__(self, ctx: click.Context, args: list[str], surplus: list[str]) -> None:
        super().__init__(
            "The text has several words without quotation marks. Nothing was sent. Put the text in quotation "
            "marks.",
            ctx,
        )
        words = list(args)
        for word in reversed(surplus):
            _remove_last(words, word)
        text = str(ctx.params.get("text"))
        if text in words:
            place = _remove_last(words, text)
            words.insert(place, " ".join([text, *surplus]))
            self.next_command = shlex.join([*ctx.command_path.split(), *words])


def _remove_last(words: list[str], word: str) -> int:
    """Remove the last occurrence of a word; return its place."""
    place = len(words) - 1 - words[::-1].index(word)
    del words[place]
    return place


class TextCommand(click.Command):
    """A command that takes a text, which may begin with a dash.

    A word that begins with a dash and contains a space is a text, because no option does. Any other such
    word is an option, and the error for an unknown one names the `--` that makes it a text. `--help` after
    an argument may be either: the help is shown, and the exit code shows that nothing was sent.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `--` before a text that would be parsed as an option. Refuse a text of several words."""
        given = list(args)
        # Words that are too many are refused below, with the command that sends them.
        ctx.allow_extra_args = True
        try:
            surplus = super().parse_args(ctx, self._with_texts_last(args))
        except click.exceptions.NoSuchOption as error:
            text = f"{error.message} A text that begins with - goes behind --."
            raise NotSent(text, ctx, given, error.option_name, error.possibilities) from None
        except click.exceptions.Exit:
            word = next((word for word in given[1:] if word in ctx.help_option_names), None)
            if word is None or given[0].startswith("-"):
                raise
            raise NotSent(f"Nothing was sent. A text {word} goes behind --.", ctx, given, word) from None
        if surplus and not ctx.resilient_parsing:
            raise SeveralWords(ctx, given, surplus)
        return surplus

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
