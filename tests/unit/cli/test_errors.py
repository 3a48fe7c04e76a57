"""Each kind of exception as a failure: code, sentence, exit code, and the fields that help."""

from __future__ import annotations

import errno
import json

import click
import pytest

from claudemesh.cli import output
from claudemesh.cli.errors import Failure, explain, report
from claudemesh.client.errors import ApiError, DaemonNotRunning
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.files import UnsafeFile

CASES = [
    (click.UsageError("No text"), Failure("usage", "No text.", 64)),
    (click.UsageError("Which one?"), Failure("usage", "Which one?", 64)),
    (ExitWith(75, "timeout", "Too late."), Failure("timeout", "Too late.", 75)),
    (ExitWith(78, "no_log", "None.", next="x up"), Failure("no_log", "None.", 78, {"next": "x up"})),
    (
        DaemonNotRunning("team"),
        Failure(
            "daemon_not_running",
            "No daemon runs for mesh team.",
            69,
            {"next": "claudemesh daemon up -d --mesh team"},
        ),
    ),
    (
        ApiError(404, {"error": "topic_not_found", "message": "None.", "near": ["#a"], "next": "x"}),
        Failure("topic_not_found", "None.", 64, {"near": ["#a"], "next": "x"}),
    ),
    (
        ProtocolError("invalid_slug", "No slug.", field="slug"),
        Failure("invalid_slug", "No slug.", 64, {"field": "slug"}),
    ),
    (UnsafeFile("chmod it"), Failure("unsafe_file", "chmod it", 77)),
    (RuntimeError("boom"), Failure("internal_error", "RuntimeError: boom.", 70)),
    (
        output.OutputFailed(OSError(errno.ENOSPC, "No space left on device")),
        Failure("output_failed", "The output cannot be written: No space left on device.", 73),
    ),
]


@pytest.mark.parametrize(("error", "failure"), CASES, ids=lambda value: type(value).__name__)
def test_an_exception_becomes_a_failure(error: Exception, failure: Failure) -> None:
    """One table for every kind."""
    assert explain(error) == failure


def test_a_missing_choice_is_one_sentence() -> None:
    """The parser lists the choices on lines of their own, and a control character would be spelled out."""
    command = click.Command("x", params=[click.Argument(["role"], type=click.Choice(["owner", "admin"]))])
    with pytest.raises(click.MissingParameter) as caught:
        command.main([], standalone_mode=False)
    text = explain(caught.value).message
    assert text.endswith("Choose from: owner, admin.")
    assert text.isprintable()


def test_an_error_of_the_system_keeps_its_remedy() -> None:
    """A full disk is a matter of later, not of wrong use."""
    failure = explain(OSError(errno.ENOSPC, "No space left", "outbox.db"))
    assert (failure.code, failure.exit_code) == ("disk_full", 75)
    assert "outbox.db" in failure.message


def test_a_wrong_option_is_answered_with_the_near_one() -> None:
    """In words and as a field."""
    error = click.exceptions.NoSuchOption("--folow", possibilities=["--follow", "--json"])
    failure = explain(error)
    assert failure.message == "No such option '--folow'. Did you mean --follow?"
    assert failure.more == {"near": ["--follow"]}


def test_a_failure_is_a_sentence_and_a_command_or_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    """For people on stderr, for programs on stdout."""
    failure = Failure("c", "It failed.", 75, {"near": ["a"], "next": "claudemesh up"})
    assert report(failure, as_json=False) == 75
    assert capsys.readouterr() == ("", "claudemesh: error: It failed.\ntry: claudemesh up\n")
    assert report(failure, as_json=True) == 75
    out, err = capsys.readouterr()
    assert err == ""
    fields = {"error": "c", "message": "It failed.", "near": ["a"], "next": "claudemesh up"}
    assert json.loads(out) == {"schema": 1, **fields}
