"""The text of a message: an argument, or what comes on stdin."""

from __future__ import annotations

import sys

import click


def message_text(text: str | None) -> str:
    """Return the text that was given, or what comes on stdin when it is `-` or missing."""
    if text is not None and text != "-":
        return text
    raw = sys.stdin.buffer.read()
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError("The text on stdin is not UTF-8.") from error
