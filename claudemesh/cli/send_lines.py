"""`claudemesh send --lines`: each line of standard input is a message.

Lines that are there together go as a batch, and the daemon makes a batch durable at once. Up to `_WINDOW`
batches are on their way at a time, on one connection, so lines are accepted in their order. A line that no
other follows yet goes alone. Each line has an id of its own. A line whose answer was lost with the connection
is sent again with it.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import click
import orjson

from claudemesh.cli import output
from claudemesh.cli.follower import RESTART_S
from claudemesh.cli.line_reader import read_lines
from claudemesh.client.errors import ApiError, DaemonNotRunning
from claudemesh.client.local import LocalClient, membership_end, no_answer
from claudemesh.client.pipeline import Pipeline
from claudemesh.runtime.exits import USAGE
from claudemesh.sdk import new_id

_WINDOW = 2
_BATCH = 128
_BATCH_BYTES = 512 << 10
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
    # The body of a send, as JSON.
    raw: bytes


class _Sender:
    def __init__(self, client: LocalClient, summary: Summary, stops: bool) -> None:
        self._client = client
        self._summary = summary
        self._stops = stops
        self._pipeline: Pipeline | None = None
        self._gathered: list[_Line] = []
        self._size = 0
        # Batches whose answers are on their way.
        self._waiting: deque[list[_Line]] = deque()

    def connect(self) -> None:
        """Connect. `DaemonNotRunning` when no daemon answers; only one that has answered is waited for."""
        try:
            self._open()
        except OSError as error:
            raise no_answer(self._client.slug, error, os.environ) from error

    def add(self, line: _Line) -> None:
        """Put a line into the batch, and send the batch before it becomes too large."""
        if self._gathered and (len(self._gathered) >= _BATCH or self._size + len(line.raw) > _BATCH_BYTES):
            self._send()
        self._gathered.append(line)
        self._size += len(line.raw)

    def finish(self) -> None:
        """Send what is gathered, and wait for all answers."""
        self._send()
        while self._waiting:
            self._settle()

    def close(self) -> None:
        """Close the connection."""
        if self._pipeline is not None:
            self._pipeline.__exit__(None, None, None)
            self._pipeline = None

    def _send(self) -> None:
        batch, self._gathered, self._size = self._gathered, [], 0
        if not batch:
            return
        while len(self._waiting) >= _WINDOW:
            self._settle()
        refused = self._summary.refusals
        if self._stops and refused and refused[0].line < batch[0].number:
            return
        self._waiting.append(batch)
        try:
            self._post(batch)
        except OSError:
            self._again()

    def _post(self, batch: list[_Line]) -> None:
        if len(batch) == 1:
            self._open().post("/v1/send", batch[0].raw)
            return
        items = b",".join(line.raw for line in batch)
        self._open().post("/v1/send/batch", b'{"items":[%b]}' % items)

    def _settle(self) -> None:
        try:
            self._answer()
        except OSError:
            self._again()

    def _open(self) -> Pipeline:
        if self._pipeline is None:
            self._pipeline = Pipeline(self._client)
        return self._pipeline

    def _answer(self) -> None:
        status, answer = self._open().answer()
        batch = self._waiting.popleft()
        found = answer.get("items")
        items = found if isinstance(found, list) and len(found) == len(batch) else None
        for line, item in zip(batch, items or [{"http_status": status, **answer}] * len(batch), strict=True):
            self._count(line, item)

    def _count(self, line: _Line, answer: Mapping[str, Any]) -> None:
        status = int(answer["http_status"])
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
                for batch in self._waiting:
                    self._post(batch)
                return
            except OSError as error:
                if time.monotonic() > deadline or membership_end(self._client.slug):
                    raise no_answer(self._client.slug, error, os.environ) from error
            time.sleep(_POLL_S)


def send_lines(
    client: LocalClient, fields: Mapping[str, Any], prefix: str | None, stops: bool, as_json: bool
) -> int:
    """Send each line of standard input, print a summary, and return the exit code."""
    if prefix is not None and (not prefix or len(prefix) > _LONGEST_PREFIX or not _is_visible(prefix)):
        raise click.UsageError(f"--id-prefix takes 1 to {_LONGEST_PREFIX} visible ASCII characters.")
    summary = Summary(prefix or new_id())
    sender = _Sender(client, summary, stops)
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
    for read in read_lines(sys.stdin.fileno(), _LONGEST_LINE):
        if read is None:
            sender.finish()
        else:
            number, raw = read
            summary.lines += 1
            text = _text(number, raw, summary)
            if text is not None:
                own = {"message": text, "client_message_id": f"{summary.id_prefix}-{number}"}
                sender.add(_Line(number, orjson.dumps({**fields, **own})))
        if summary.failed and stops:
            break
    sender.finish()
    sender.close()


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
