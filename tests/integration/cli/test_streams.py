"""Standard streams that are closed, full, broken or of another encoding: no traceback, true exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.audit import wait_received
from tests.support.cli import begin, homes, run, shell
from tests.support.processes import Mesh, until
from tests.support.waiting import WAIT_S

OK, USAGE, CANNOT_CREATE = 0, 64, 73
SENDS = ["send bob hi", "send bob hi --json", "send bob hi --meta '{}'", "topic post all hi", "reply 1 hi"]
READS = ["inbox", "inbox --json", "peers", "status", "daemon outbox list", "version"]
PAGES = ["--help", "send --help"]
CODE = "; echo $? >&2"


def last(text: str) -> int:
    """The exit code that the shell has written last."""
    return int(text.splitlines()[-1])


@pytest.fixture(autouse=True, scope="module")
def first_message(pair: Mesh) -> None:
    """Alice has a message to reply to, with characters that few encodings have."""
    sent = pair.daemons["bob"].send("alice", "grün 🛰\ttab")[1]["client_message_id"]
    wait_received(pair.daemons["alice"], [sent])


@pytest.mark.parametrize("command", SENDS)
@pytest.mark.parametrize("stdout", [">/dev/full", ">&-", "| true"])
def test_an_accepted_message_is_a_success_whatever_stdout_does(pair: Mesh, command: str, stdout: str) -> None:
    """A script that tries again would send a second message."""
    alice, _ = homes(pair)
    before = len(pair.daemons["alice"].outbox())
    done = shell(alice, f"{{ claudemesh {command}{CODE}; }} {stdout}")
    assert (last(done.err), "Traceback" in done.err) == (OK, False), done.err
    assert len(pair.daemons["alice"].outbox()) == before + 1


@pytest.mark.parametrize("command", READS)
def test_a_full_disk_under_stdout_is_an_error_in_one_sentence(pair: Mesh, command: str) -> None:
    """The output is missing, and the exit code shows it."""
    alice, _ = homes(pair)
    done = shell(alice, f"claudemesh {command} >/dev/full")
    assert done.code == CANNOT_CREATE
    assert done.err == "claudemesh: error: The output cannot be written: No space left on device.\n"


@pytest.mark.parametrize("command", [*READS, *PAGES])
@pytest.mark.parametrize("stdout", [">&-", "| true"])
def test_a_stdout_without_a_reader_is_no_error(pair: Mesh, command: str, stdout: str) -> None:
    """As in `| head -1`: exit 0 and no word."""
    alice, _ = homes(pair)
    done = shell(alice, f"{{ claudemesh {command}{CODE}; }} {stdout}")
    assert done.err == "0\n"


def test_an_error_keeps_its_exit_code_when_it_cannot_be_shown(pair: Mesh) -> None:
    """Neither a full stderr nor a full stdout with --json hides what went wrong."""
    alice, _ = homes(pair)
    assert shell(alice, "claudemesh send nobody-at-all hi 2>/dev/full").code == USAGE
    assert shell(alice, "claudemesh send nobody-at-all hi 2>&-").code == USAGE
    done = shell(alice, "claudemesh send nobody-at-all hi --json >/dev/full")
    assert (done.code, "nobody-at-all" in done.err) == (USAGE, True)


def test_a_closed_stdin_is_an_empty_one(pair: Mesh) -> None:
    """No traceback, and nothing is sent."""
    alice, _ = homes(pair)
    done = shell(alice, "claudemesh send bob <&-")
    assert (done.code, "is empty" in done.err) == (USAGE, True)
    assert shell(alice, "claudemesh peers <&-").code == OK


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_another_encoding_spells_out_what_it_lacks(pair: Mesh, encoding: str) -> None:
    """The message is shown, and JSON is UTF-8 as it always is."""
    alice, _ = homes(pair)
    shown = shell(alice, "claudemesh inbox", PYTHONIOENCODING=encoding)
    assert (shown.code, shown.err) == (OK, "")
    assert "\\U0001f6f0\\x09tab" in shown.out
    found = shell(alice, "claudemesh inbox --json", PYTHONIOENCODING=encoding)
    assert json.loads(found.out)["items"][0]["body"] == "grün 🛰\ttab"


@pytest.mark.parametrize("command", ["send bob", "topic post all", "reply 1", "request bob", "send"])
def test_an_argument_that_is_no_utf8_is_refused(pair: Mesh, command: str) -> None:
    """By its number; nothing is sent."""
    alice, _ = homes(pair)
    before = len(pair.daemons["alice"].outbox())
    done = shell(alice, f"claudemesh {command} $(printf 'a\\377b')")
    assert done.code == USAGE
    number = len(command.split()) + 1
    assert done.err.startswith(f"claudemesh: error: Argument {number} is not valid UTF-8: a\\udcffb.")
    assert len(pair.daemons["alice"].outbox()) == before


def test_a_path_that_is_no_utf8_is_refused_in_a_sentence(pair: Mesh, tmp_path: Path) -> None:
    """Also as JSON, and when it is the directory in which a command runs."""
    alice, _ = homes(pair)
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    Path(os.fsdecode(folder), "file").write_text("text")
    place = f"{tmp_path}/$(printf 'caf\\351')"
    for command in (f"file send {place}/file bob --json", "file send file bob --json"):
        done = shell(alice, f"cd {place}; claudemesh {command}")
        assert (done.code, done.err) == (USAGE, "")
        assert "is not valid UTF-8" in done.json["message"] and "/caf\\udce9/file" in done.json["message"]


def test_a_reply_in_a_file_is_the_body_that_was_sent(pair: Mesh) -> None:
    """Tabs and line ends included: a Makefile stays one."""
    alice, bob = homes(pair)
    text = "all:\r\n\techo 🛰\r\n"

    def question() -> Any:
        items = run(bob, "inbox", "--json").json["items"]
        return next((item for item in items if item["body"] == "the makefile?"), None)

    with begin(alice, "request", "bob", "the makefile?", "--timeout", "120s") as asking:
        found = until(question, "the question has arrived")
        assert run(bob, "reply", str(found["seq"]), stdin=text.encode()).code == OK
        assert asking.communicate(timeout=WAIT_S)[0] == text.encode()
