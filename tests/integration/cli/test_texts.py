"""Texts on the command line: with a dash in front, empty, or from standard input."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.audit import wait_received
from tests.support.cli import Ran, homes, run
from tests.support.mounts import hidden
from tests.support.processes import REPOSITORY, Mesh, until
from tests.support.waiting import WAIT_S

OK, USAGE = 0, 64


def sent(pair: Mesh, done: Ran) -> str:
    """The body that arrived at bob."""
    assert done.code == OK, done.err
    message_id = done.json["client_message_id"]
    bob = pair.daemons["bob"]
    wait_received(bob, [message_id])
    return next(item["body"] for item in bob.inbox() if item["client_message_id"] == message_id)


@pytest.mark.parametrize(
    "text", ["- one item", "-v is not a version", "--help me", "--json is a flag", "-x=1 or -y=2"]
)
def test_a_text_with_a_space_is_a_text(pair: Mesh, text: str) -> None:
    """With any beginning: no option contains a space."""
    alice, _ = homes(pair)
    assert sent(pair, run(alice, "send", "bob", text, "--json")) == text
    assert sent(pair, run(alice, "send", "--json", "bob", text, "--priority", "now")) == text


def test_a_text_behind_two_dashes_is_a_text(pair: Mesh) -> None:
    """A single word, an option's name included."""
    alice, _ = homes(pair)
    for text in ("-v", "--help", "--json", "--"):
        assert sent(pair, run(alice, "send", "bob", "--json", "--", text)) == text


def test_the_value_of_an_option_may_begin_with_a_dash(pair: Mesh) -> None:
    """It is no text, though it holds a space."""
    alice, _ = homes(pair)
    done = run(alice, "send", "bob", "x", "--meta", "- no json")
    assert (done.code, "--meta is not JSON: see column " in done.err) == (USAGE, True)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["send", "bob", "-v"], "claudemesh send bob -- -v"),
        (
            ["send", "bob", "--verbose", "--priority", "now"],
            "claudemesh send bob --priority now -- --verbose",
        ),
        (["topic", "post", "all", "-v"], "claudemesh topic post all -- -v"),
        (["send", "bob", "--help"], "claudemesh send bob -- --help"),
        (["reply", "1", "-h"], "claudemesh reply 1 -- -h"),
    ],
)
def test_a_word_that_may_be_an_option_is_not_sent_and_the_error_says_how(
    pair: Mesh, arguments: list[str], command: str
) -> None:
    """Exit 64, and the command that sends it."""
    alice, _ = homes(pair)
    done = run(alice, *arguments)
    assert done.code == USAGE
    assert done.err.endswith(f"try: {command}\n")


def test_the_help_of_a_command_is_no_error(pair: Mesh) -> None:
    """Without an argument before it, --help cannot be a text."""
    alice, _ = homes(pair)
    assert run(alice, "send", "--help").code == OK
    assert run(alice, "inbox", "-n", "1", "--help").code == OK


@pytest.mark.parametrize(
    "command",
    [
        ["send", "bob"],
        ["send", "bob", "-"],
        ["send", "bob", ""],
        ["send", "bob", "", "--json"],
        ["topic", "post", "all"],
        ["topic", "post", "all", ""],
        ["request", "bob"],
        ["request", "bob", ""],
    ],
)
def test_an_empty_text_is_refused(pair: Mesh, command: list[str]) -> None:
    """It is what a failed command in a pipe, or a variable that is not set, leaves behind."""
    alice, _ = homes(pair)
    before = len(pair.daemons["alice"].outbox())
    done = run(alice, *command)
    assert (done.code, "--allow-empty" in done.out + done.err) == (USAGE, True)
    if not done.out:
        assert done.err.splitlines()[-1] == f"try: {shlex.join(['claudemesh', *command])} --allow-empty"
    assert len(pair.daemons["alice"].outbox()) == before


def test_an_empty_text_is_sent_when_it_is_meant(pair: Mesh) -> None:
    """By an option, for standard input and for an argument."""
    alice, _ = homes(pair)
    assert sent(pair, run(alice, "send", "bob", "--allow-empty", "--json")) == ""
    assert sent(pair, run(alice, "send", "bob", "", "--allow-empty", "--json")) == ""


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["send", "bob", "hello", "there"], "claudemesh send bob 'hello there'"),
        (
            ["send", "bob", "so", "so", "so", "--priority", "now"],
            "claudemesh send bob 'so so so' --priority now",
        ),
        (["topic", "post", "all", "it", "is", "green"], "claudemesh topic post all 'it is green'"),
        (["request", "bob", "are", "you", "there?"], "claudemesh request bob 'are you there?'"),
        (["reply", "1", "I", "am"], "claudemesh reply 1 'I am'"),
    ],
)
def test_a_text_of_several_words_is_refused_with_the_command_that_sends_it(
    pair: Mesh, words: list[str], command: str
) -> None:
    """Quotation marks are missing; nothing is sent."""
    alice, _ = homes(pair)
    before = len(pair.daemons["alice"].outbox())
    done = run(alice, *words)
    assert (done.code, "quotation marks" in done.err) == (USAGE, True)
    assert done.err.endswith(f"try: {command}\n")
    assert len(pair.daemons["alice"].outbox()) == before


def test_a_long_text_is_sent_from_a_temporary_directory_that_the_daemon_does_not_see(
    pair: Mesh, tmp_path: Path
) -> None:
    """It is given below the home directory then, and nothing is left there."""
    alice, _ = homes(pair)
    tmp, home = tmp_path / "tmp", tmp_path / "home"
    for folder in (tmp, home):
        folder.mkdir()
    text = "0123456789abcdé\n" * (2 << 16)
    done = subprocess.run(
        [*hidden(tmp), sys.executable, "-m", "claudemesh", "send", "bob", "-", "--json"],
        env={**os.environ, "CLAUDEMESH_HOME": str(alice), "HOME": str(home), "TMPDIR": str(tmp)},
        cwd=REPOSITORY,
        input=text.encode(),
        capture_output=True,
        timeout=WAIT_S,
    )
    bob = pair.daemons["bob"]
    assert done.returncode == OK, done.stderr
    message_id = json.loads(done.stdout)["client_message_id"]
    wait_received(bob, [message_id])
    [item] = [item for item in bob.inbox() if item["client_message_id"] == message_id]

    def body() -> str:
        return str(bob.request("GET", f"/v1/inbox/{item['id']}")[1]["body"])

    until(lambda: len(body()) > len(text) // 2, "the whole text is at bob")
    assert body() == text
    assert list(home.iterdir()) == []
