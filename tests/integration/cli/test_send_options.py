"""`send` with --to, --file and --lines: texts from files, and a message for each line."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.cli import begin, homes, run
from tests.support.processes import Daemon, Mesh, mesh, until
from tests.support.waiting import WAIT_S

OK, USAGE, UNAVAILABLE, TEMPORARY, INTERRUPTED = 0, 64, 69, 75, 130


def rows(daemon: Daemon, prefix: str) -> list[str]:
    """The ids of the outbox that begin with a prefix, in the order of acceptance."""
    return [one for one in daemon.outbox() if one.startswith(f"{prefix}-")]


def last_text(daemon: Daemon, sent: str) -> str:
    """The text of a send, once it is received by its own sender or another member."""
    return str(
        until(lambda: {i["client_message_id"]: i["body"] for i in daemon.inbox()}.get(sent), "it came")
    )


def test_the_recipient_is_an_argument_or_an_option(pair: Mesh) -> None:
    """With --to the first argument is the text; both is an error."""
    alice, _ = homes(pair)
    bob = pair.daemons["bob"]
    sent = run(alice, "send", "--to", "bob", "hello", "--json").json["client_message_id"]
    assert last_text(bob, sent) == "hello"
    both = run(alice, "send", "bob", "hello", "--to", "bob")
    assert (both.code, "destination once" in both.err) == (USAGE, True)
    assert run(alice, "send").code == USAGE


@pytest.mark.parametrize("command", [["send", "bob"], ["topic", "post", "files"]])
def test_a_text_comes_from_a_file(pair: Mesh, tmp_path: Path, command: list[str]) -> None:
    """Unchanged; a missing, empty, binary or huge file sends nothing."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    pair.cli(bob, "topic", "create", "files")
    pair.cli(bob, "topic", "subscribe", "files")
    until(
        lambda: any(item["topic"] == "files" for item in alice.request("GET", "/v1/topic/list")[1]["items"]),
        "it is known",
    )
    file = tmp_path / "notes.txt"
    file.write_text("first\nsecond\n")
    sent = run(alice.home, *command, "--file", str(file), "--json").json["client_message_id"]
    assert last_text(bob, sent) == "first\nsecond\n"
    before = len(alice.outbox())
    assert "cannot be read" in run(alice.home, *command, "--file", str(tmp_path / "none")).err
    for content, words in ((b"", "is empty"), (b"\xff", "not UTF-8"), (b"x" * (16 << 20) + b"x", "larger")):
        file.write_bytes(content)
        done = run(alice.home, *command, "--file", str(file))
        assert (done.code, words in done.err, "Nothing was sent" in done.err) == (USAGE, True, True), done.err
    assert run(alice.home, *command, "text", "--file", str(file)).code == USAGE
    assert len(alice.outbox()) == before


def test_an_at_sign_sends_no_file_but_says_how_to(pair: Mesh, tmp_path: Path) -> None:
    """A text from a variable cannot choose a file of this host."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    file = tmp_path / "secret"
    file.write_text("secret")
    done = run(alice.home, "send", "bob", f"@{file}", "--json")
    assert f"--file {file}" in done.err
    assert last_text(bob, done.json["client_message_id"]) == f"@{file}"
    assert run(alice.home, "send", "bob", "@bob", "--json").err == ""


def test_each_line_is_a_message_in_the_order_of_the_lines() -> None:
    """A second run with the same prefix sends nothing twice."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        count = 200
        lines = b"".join(f"line {number}\r\n\n".encode() for number in range(count))
        command = ("send", "bob", "--lines", "--id-prefix", "import", "--json")
        first = run(alice.home, *command, stdin=lines)
        assert first.code == OK
        assert (first.json["accepted"], first.json["repeated"], first.json["failed"]) == (count, 0, 0)
        until(lambda: len(bob.inbox()) == count, "all have arrived")
        until(lambda: {row["status"] for row in alice.outbox().values()} == {"done"}, "all are done")
        again = run(alice.home, *command, stdin=lines)
        assert (again.json["accepted"], again.json["repeated"]) == (count, count)
        assert [item["body"] for item in bob.inbox()] == [f"line {number}" for number in range(count)]
        # The number is that of the line, so that a run goes on where another one has stopped.
        assert bob.inbox()[1]["client_message_id"] == "import-3"


def test_lines_stop_at_a_refusal_or_go_on_as_told(pair: Mesh) -> None:
    """The summary names the line; the exit code is that of the first refusal."""
    alice, _ = homes(pair)
    lines = b"one\n\xff\n" + b"".join(b"%d\n" % number for number in range(200))
    stopped = run(alice, "send", "bob", "--lines", "--id-prefix", "stop", "--json", stdin=lines)
    assert (stopped.code, stopped.json["error"], stopped.json["failed"]) == (USAGE, "invalid_text", 1)
    assert (stopped.json["lines"], stopped.json["accepted"]) == (2, 1)
    assert stopped.json["next"] == "claudemesh send bob --lines --id-prefix stop"
    command = ("send", "bob", "--lines", "--id-prefix", "go", "--on-error", "continue")
    gone_on = run(alice, *command, stdin=lines)
    assert gone_on.code == USAGE
    assert "accepted 201 of 202 lines" in gone_on.out
    assert "Line 2: The line is not UTF-8." in gone_on.err
    assert len(rows(pair.daemons["alice"], "go")) == 201
    huge = b"x" * (3 << 20) + b"\nafter\n"
    done = run(alice, *command[:3], "--on-error", "continue", "--json", stdin=huge)
    assert [(item["line"], item["error"]) for item in done.json["refusals"]] == [(1, "payload_too_large")]
    assert done.json["accepted"] == 1


def test_a_line_is_sent_before_the_next_one_comes(pair: Mesh) -> None:
    """A stream that pauses keeps no line back, and one that ends without a newline has a last line."""
    alice = pair.daemons["alice"]
    with begin(alice.home, "send", "bob", "--lines", "--id-prefix", "slow", stdin=True) as sending:
        assert sending.stdin is not None
        for number, raw in enumerate((b"one\n", b"two\nthr", b"ee\r\n\nfive\n"), 1):
            sending.stdin.write(raw)
            sending.stdin.flush()
            found = {1: ["slow-1"], 2: ["slow-1", "slow-2"], 3: ["slow-1", "slow-2", "slow-3", "slow-5"]}
            until(lambda wanted=found[number]: rows(alice, "slow") == wanted, "the whole lines are accepted")
        sending.stdin.write(b"six")
        sending.stdin.close()
        assert sending.wait(WAIT_S) == OK
    assert rows(alice, "slow")[-1] == "slow-6"


def test_lines_after_a_refused_one_are_not_sent(pair: Mesh) -> None:
    """Except for those of batches that are on their way. The refusal is that of the line itself."""
    alice = pair.daemons["alice"]
    run(alice.home, "send", "bob", "another text", "--id", "mid-300")
    lines = b"".join(b"%d\n" % number for number in range(1, 2001))
    command = ("send", "bob", "--lines", "--id-prefix", "mid", "--json")
    stopped = run(alice.home, *command, stdin=lines)
    assert (stopped.json["error"], stopped.json["failed"]) == ("idempotency_key_reused", 1)
    assert [item["line"] for item in stopped.json["refusals"]] == [300]
    assert stopped.json["accepted"] < 1000
    gone_on = run(alice.home, *command, "--on-error", "continue", stdin=lines).json
    assert (gone_on["lines"], gone_on["accepted"], gone_on["failed"]) == (2000, 1999, 1)
    kept = rows(alice, "mid")
    assert kept[:2] == ["mid-300", "mid-1"]
    assert sorted(kept[1:], key=lambda one: int(one.partition("-")[2])) == kept[1:]


def test_lines_go_on_over_a_restart_of_the_daemon() -> None:
    """Lines without an answer are sent again with their ids."""
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        with begin(
            alice.home, "send", "alice", "--lines", "--id-prefix", "over", "--json", stdin=True
        ) as sending:
            assert sending.stdin is not None
            sending.stdin.write(b"before\n" * 20)
            sending.stdin.flush()
            until(lambda: len(rows(alice, "over")) == 20, "the first ones are accepted")
            alice.kill()
            sending.stdin.write(b"meanwhile\n" * 50)
            sending.stdin.flush()
            alice.start()
            alice.ready()
            sending.stdin.close()
            assert sending.wait(WAIT_S) == OK
        assert sorted(rows(alice, "over")) == sorted(f"over-{number}" for number in range(1, 71))


def test_interrupted_lines_say_how_to_go_on(pair: Mesh) -> None:
    """130, with the prefix that was made up."""
    alice = pair.daemons["alice"]
    before = len(alice.outbox())
    with begin(alice.home, "send", "bob", "--lines", stdin=True) as sending:
        assert sending.stdin is not None
        sending.stdin.write(b"one\n")
        sending.stdin.flush()
        until(lambda: len(alice.outbox()) == before + 1, "it is accepted")
        sending.send_signal(signal.SIGINT)
        assert sending.wait(WAIT_S) == INTERRUPTED
        assert sending.stderr is not None
        assert b"claudemesh send bob --lines --id-prefix " in sending.stderr.read()


def test_lines_without_a_daemon_or_with_other_texts_are_refused(pair: Mesh) -> None:
    """Nothing was read then."""
    alice, _ = homes(pair)
    for options in (["text"], ["--id", "x"], ["--wait", "1"], ["--id-prefix", "a b"], ["--file", "x"]):
        assert run(alice, "send", "bob", *options, "--lines", stdin=b"x\n").code == USAGE, options
    refused = run(alice, "send", "bob", "text", "--id", "x", "--lines", stdin=b"x\n").err
    assert "leave out TEXT and --id" in refused
    for options in (["-"], ["--file", "-"]):
        assert run(alice, "send", "bob", *options, "--lines", stdin=b"x\n").code == 0, options
    assert run(alice, "send", "bob", "text", "--id-prefix", "x").code == USAGE
    with mesh("alice", start=False) as made:
        done = run(made.daemons["alice"].home, "send", "alice", "--lines", stdin=b"x\n")
        assert done.code == UNAVAILABLE
