"""Errors of a command: the one place where an exception becomes a message and an exit code.

On stderr a failure is a sentence and, where one helps, a literal command:

    claudemesh: error: No daemon runs for mesh team.
    try: claudemesh daemon up -d

With --json the same failure is an object on stdout: `error` (a stable code), `message`, and where they help
`near` (names similar to the wrong one) and `next` (the command).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from claudemesh.cli import output
from claudemesh.cli.streams import discard_stdout
from claudemesh.runtime.exits import CANNOT_CREATE, INTERNAL, PERMISSION, USAGE, ExitWith

_SENTENCE_ENDS = (".", "?", "!")


@dataclass(frozen=True)
class Failure:
    """A failure as it is reported; `more` holds further fields for --json, such as `near` and `next`."""

    code: str
    message: str
    exit_code: int
    more: Mapping[str, Any] = field(default_factory=dict)


def report(failure: Failure, *, as_json: bool) -> int:
    """Print a failure, and return its exit code."""
    if not as_json:
        output.error(failure.message, failure.more.get("next"))
        return failure.exit_code
    try:
        output.print_json({"error": failure.code, "message": failure.message, **failure.more})
    except (output.OutputFailed, BrokenPipeError):
        discard_stdout()
        output.error(failure.message, failure.more.get("next"))
    return failure.exit_code


def explain(error: Exception) -> Failure:
    """Return the failure for an exception of a command."""
    if isinstance(error, click.ClickException):
        return _wrong_use(error)
    if isinstance(error, ExitWith):
        more = {} if error.next is None else {"next": error.next}
        return Failure(error.error, error.message, error.code, more)
    if isinstance(error, output.OutputFailed):
        text = f"The output cannot be written: {error.cause.strerror}."
        return Failure("output_failed", text, CANNOT_CREATE)
    return _of_a_layer_below(error)


def _wrong_use(error: click.ClickException) -> Failure:
    context: click.Context | None = getattr(error, "ctx", None)
    near: list[str] = getattr(error, "near", None) or getattr(error, "possibilities", None) or []
    if isinstance(error, click.exceptions.NoSuchOption | click.exceptions.NoSuchCommand):
        message = _sentence(error.message)
    else:
        message = _sentence(error.format_message())
    if isinstance(error, click.MissingParameter):
        # The choices stand on lines of their own there.
        message = " ".join(message.split())
    more: dict[str, Any] = {}
    if near:
        message += f" Did you mean {' or '.join(near)}?"
        more["near"] = near
    if hint := getattr(error, "next_command", None):
        more["next"] = hint
    elif context is not None:
        more["next"] = f"{context.command_path} --help"
    return Failure("usage", message, USAGE, more)


def _of_a_layer_below(error: Exception) -> Failure:
    # Imported here: a command that succeeds needs none of these.
    from claudemesh.client.errors import ClientError
    from claudemesh.protocol.errors import ProtocolError
    from claudemesh.runtime.files import UnsafeFile
    from claudemesh.runtime.oserrors import cannot

    if isinstance(error, ClientError):
        return _with_body(error.code, error.message, error.exit_code, error.as_body())
    if isinstance(error, ProtocolError):
        return _with_body(error.code, error.message, USAGE, error.as_body())
    if isinstance(error, UnsafeFile):
        return Failure("unsafe_file", str(error), PERMISSION)
    if isinstance(error, OSError):
        return explain(cannot("use", error))
    return Failure("internal_error", _sentence(f"{type(error).__name__}: {error}"), INTERNAL)


def _with_body(code: str, message: str, exit_code: int, body: Mapping[str, Any]) -> Failure:
    more = {name: value for name, value in body.items() if name not in ("error", "message")}
    return Failure(code, message, exit_code, more)


def _sentence(text: str) -> str:
    return text if text.endswith(_SENTENCE_ENDS) else f"{text}."
