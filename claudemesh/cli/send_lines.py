"""`claudemesh send --lines`: each line of standard input is a message.

Up to `_WINDOW` lines are on their way to the daemon at a time, on one connection, so they are accepted in
their order. Each line has an id of its own. A line whose answer was lost with the connection is sent again
with it.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import click

from claudemesh.cli import output
from claudemesh.cli.follower import RESTART_S
from claudemesh.client.errors import ApiError, DaemonNotRunning
from claudemesh.client.local import LocalClient
from claudemesh.client.pipeline import Pipeline
from claudemesh.runtime.exits import USAGE
from claudemesh.sdk import new_id

_WINDOW = 32
# The daemon takes no larger request.
_LONGEST_LINE = 1 << 20
_LONGEST_PREFIX = 200
# Refusals that are listed; the others are counted.
_MOST_LISTED = 100
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that was not accepted."""

    line: int
    error: str
    message: str


@dataclass(slots=True)
class Summary:
    """The outcome for all lines that were read. `repeated` lines were accepted by an earlier run."""

    id_prefix: str
    lines: int = 0
    accepted: int = 0
    repeated: int = 0
    failed: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    exit_code: int = 0

    def refuse(self, line: int, error: str, message: str, exit_code: int) -> None:
        """Note a line that is refused. The exit code is that of the first one."""
        self.failed += 1
        self.exit_code = self.exit_code or exit_code
        if len(self.refusals) < _MOST_LISTED:
            self.refusals.append(Refusal(line, error, message))

    def text(self) -> str:
        """Return one line for people."""
        repeated = f", {self.repeated} of them before" if self.repeated else ""
        return f"accepted {self.accepted} of {self.lines} lines{repeated} (ids {self.id_prefix}-N)"


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    body: Mapping[str, Any]


class _Sender:
    def __init__(self, client: LocalClient, summary: Summary) -> None:
        self._client = client
        self._summary = summary
        self._pipeline: Pipeline | None = None
        self._waiting: deque[_Line] = deque()

    def connect(self) -> None:
        """Connect. `DaemonNotRunning` when no daemon answers; only one that has answered is waited for."""
        try:
            self._open()
        except OSError as error:
            raise DaemonNotRunning(self._client.slug) from error

    def send(self, line: _Line) -> None:
        """Send a line, and read the answers that have arrived."""
        self._waiting.append(line)
        try:
            self._open().post("/v1/send", line.body)
            while self._waiting and (len(self._waiting) >= _WINDOW or self._open().is_answered()):
                self._answer()
        except OSError:
            self._again()

    def finish(self) -> None:
        """Wait for all answers."""
        while self._waiting:
            try:
                self._open()
                self._answer()
            except OSError:
                self._again()
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._pipeline is not None:
            self._pipeline.__exit__(None, None, None)
            self._pipeline = None

    def _open(self) -> Pipeline:
        if self._pipeline is None:
            self._pipeline = Pipeline(self._client)
        return self._pipeline

    def _answer(self) -> None:
        status, answer = self._open().answer()
        line = self._waiting.popleft()
        if status < 400:
            self._summary.accepted += 1
            self._summary.repeated += answer.get("duplicate") is True
            return
        error = ApiError(status, answer)
        self._summary.refuse(line.number, error.code, error.message, error.exit_code)

    def _again(self) -> None:
        """Send the lines that wait for an answer once more, when the daemon is back."""
        deadline = time.monotonic() + RESTART_S
        while True:
            self.close()
            try:
                pipeline = self._open()
                for line in self._waiting:
                    pipeline.post("/v1/send", line.body)
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise DaemonNotRunning(self._client.slug) from error
            time.sleep(_POLL_S)


def send_lines(
    client: LocalClient, fields: Mapping[str, Any], prefix: str | None, stops: bool, as_json: bool
) -> int:
    """Send each line of standard input, print a summary, and return the exit code."""
    if prefix is not None and (not prefix or len(prefix) > _LONGEST_PREFIX or not _is_visible(prefix)):
        raise click.UsageError(f"--id-prefix takes 1 to {_LONGEST_PREFIX} visible ASCII characters.")
    summary = Summary(prefix or new_id())
    sender = _Sender(client, summary)
    sender.connect()
    try:
        _send_all(sender, summary, fields, stops)
    except (DaemonNotRunning, KeyboardInterrupt):
        sender.close()
        if summary.lines:
            again = _again_command(fields, summary)
            output.note(f"Interrupted: {summary.text()}.")
            output.note(f"The same lines go on, and none arrives twice, with:\n{again}")
        raise
    return _show(summary, fields, as_json)


def _send_all(sender: _Sender, summary: Summary, fields: Mapping[str, Any], stops: bool) -> None:
    for number, raw in _lines(sys.stdin.buffer):
        summary.lines += 1
        text = _text(number, raw, summary)
        if text is not None:
            own = {"message": text, "client_message_id": f"{summary.id_prefix}-{number}"}
            sender.send(_Line(number, {**fields, **own}))
        if summary.failed and stops:
            break
    sender.finish()


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not empty, with their numbers. A line that is too long comes cut."""
    number = 0
    while raw := stream.readline(_LONGEST_LINE + 2):
        number += 1
        rest = raw
        while not rest.endswith(b"\n") and len(rest) == _LONGEST_LINE + 2:
            rest = stream.readline(_LONGEST_LINE + 2)
        line = raw.removesuffix(b"\n").removesuffix(b"\r")
        if line:
            yield number, line


def _text(number: int, raw: bytes, summary: Summary) -> str | None:
    if len(raw) > _LONGEST_LINE:
        text = f"The line is longer than {_LONGEST_LINE} bytes, more than any message."
        summary.refuse(number, "payload_too_large", text, USAGE)
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        summary.refuse(number, "invalid_text", "The line is not UTF-8.", USAGE)
        return None


def _is_visible(prefix: str) -> bool:
    return all("!" <= character <= "~" for character in prefix)


def _show(summary: Summary, fields: Mapping[str, Any], as_json: bool) -> int:
    answer = {
        "lines": summary.lines,
        "accepted": summary.accepted,
        "repeated": summary.repeated,
        "failed": summary.failed,
        "refusals": [asdict(refusal) for refusal in summary.refusals],
        "id_prefix": summary.id_prefix,
    }
    if not summary.failed:
        return output.print_answer(as_json, {"status": "sent", **answer}, summary.text())
    first = summary.refusals[0]
    text = f"{summary.failed} of {summary.lines} lines were not accepted. Line {first.line}: {first.message}"
    again = _again_command(fields, summary)
    if as_json:
        output.print_json({"error": first.error, "message": text, **answer, "next": again})
        return summary.exit_code
    output.say(summary.text())
    output.error(text, again)
    for refusal in summary.refusals[1:]:
        output.note(f"line {refusal.line}: {refusal.message}")
    if summary.failed > len(summary.refusals):
        output.note(f"{summary.failed - len(summary.refusals)} more lines were not accepted.")
    return summary.exit_code


def _again_command(fields: Mapping[str, Any], summary: Summary) -> str:
    to = shlex.quote(str(fields["to"]))
    return f"claudemesh send {to} --lines --id-prefix {shlex.quote(summary.id_prefix)}"
