"""Errors as people and programs read them: a sentence, names that are near, and a command that helps."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from claudemesh.runtime import exits
from tests.support.cli import homes, run
from tests.support.processes import Mesh

USAGE, UNAVAILABLE, CONFIGURATION = 64, 69, 78

NAMES = [
    (["send", "boob", "hi"], "destination_not_found", "bob"),
    (["ping", "boob"], "destination_not_found", "bob"),
    (["send", "#al", "hi"], "topic_not_found", "#all"),
    (["topic", "post", "al", "hi"], "topic_not_found", "#all"),
    (["topic", "subscribe", "al"], "topic_not_found", "#all"),
    (["topic", "subscribe", "queue:al"], "topic_not_found", "#all"),
    (["status", "--mesh", "dmo"], "unknown_mesh", "demo"),
    (["sned", "bob", "hi"], "usage", "send"),
    (["daemon", "statsu"], "usage", "daemon status"),
    (["inbox", "--mentoins"], "usage", "--mentions"),
]


@pytest.mark.parametrize(("arguments", "error", "near"), NAMES, ids=lambda value: str(value))
def test_a_wrong_name_is_answered_with_names_that_look_like_it(
    pair: Mesh, arguments: list[str], error: str, near: str
) -> None:
    """People are asked whether they meant it; programs get `near` and the command to go on with, `next`."""
    alice, _ = homes(pair)
    shown = run(alice, *arguments)
    assert shown.code == (CONFIGURATION if error == "unknown_mesh" else USAGE)
    assert f"Did you mean {near}" in shown.err or f"It is in {near}." in shown.err
    first, _, second = shown.err.rstrip("\n").partition("\n")
    assert first.startswith("claudemesh: error: ")
    body = run(alice, *arguments, "--json").json
    assert (body["error"], body["near"][0]) == (error, near)
    assert body["next"].startswith("claudemesh ")
    assert second == f"try: {body['next']}"


@pytest.mark.parametrize("command", [["send", "zzz", "hi"], ["ping", "zzz"]])
def test_a_name_that_resembles_no_other_is_answered_with_the_members(pair: Mesh, command: list[str]) -> None:
    """The next command lists them all."""
    alice, _ = homes(pair)
    body = run(alice, *command, "--json").json
    assert (body["near"], body["next"]) == ([], "claudemesh peers")
    assert "alice, bob" in body["message"]


def test_the_next_command_of_an_error_can_be_run(pair: Mesh, tmp_path: Path) -> None:
    """Without a daemon it is the command that starts one."""
    alice, _ = homes(pair)
    folder = tmp_path / "daemon" / "demo"
    folder.mkdir(parents=True, mode=0o700)
    for name in ("membership.json", "keypair.json"):
        (folder / name).write_bytes((alice / "daemon" / "demo" / name).read_bytes())
        (folder / name).chmod(0o600)
    done = run(tmp_path, "send", "bob", "hi", "--json")
    assert (done.code, done.json["error"]) == (UNAVAILABLE, "daemon_not_running")
    command = done.json["next"].split()
    assert command == ["claudemesh", "daemon", "up", "-d", "--mesh", "demo"]
    assert run(tmp_path, *command[1:], "--help").code == 0


def test_an_unforeseen_answer_is_still_an_object(tmp_path: Path) -> None:
    """--json is JSON for every failure."""
    for arguments in (["send"], ["nonsense"], ["inbox", "--limit", "0"], ["join", "not a link"]):
        done = run(tmp_path, *arguments, "--json")
        assert done.err == ""
        assert set(json.loads(done.out)) >= {"error", "message"}


HABITS = [
    (["topic", "ls"], ["topic", "list"]),
    (["daemon", "outbox", "ls"], ["daemon", "outbox", "list"]),
    (["peers", "ls", "-q"], ["peers", "-q"]),
    (["inbox", "list", "--unread"], ["inbox", "--unread"]),
    (["ps"], ["daemon", "ps"]),
    (["--version"], ["version"]),
    (["-V"], ["version"]),
    (["help"], ["--help"]),
    (["help", "daemon", "up"], ["daemon", "up", "--help"]),
    (["help", "topic", "ls"], ["topic", "list", "--help"]),
    (["help", "broker", "mesh", "list"], ["broker", "mesh", "list", "--help"]),
]


@pytest.mark.parametrize(("habit", "command"), HABITS, ids=lambda value: " ".join(value))
def test_habits_of_other_tools_do_what_they_do_there(
    pair: Mesh, habit: list[str], command: list[str]
) -> None:
    """The same output and exit code as the command of this tool."""
    alice, _ = homes(pair)
    done, wanted = run(alice, *habit), run(alice, *command)
    assert (done.code, done.out, done.err) == (0, wanted.out, "")
    assert wanted.code == 0


ELSEWHERE = [
    (["reload"], "daemon reload"),
    (["requeue", "some-id"], "outbox requeue"),
    (["daemon", "send", "bob"], "send"),
    (["broker", "peers"], "peers"),
    (["rotate"], "daemon rotate-token"),
    (["daemon", "rotate"], "daemon rotate-token"),
    (["help", "metrics"], "daemon metrics"),
    (["topic", "lst"], "topic list"),
    (["broker", "mesh", "create", "ops"], "mesh create"),
    (["broker", "invite", "create"], "invite create"),
]


@pytest.mark.parametrize(("arguments", "near"), ELSEWHERE, ids=lambda value: str(value))
def test_a_command_of_another_group_is_found(tmp_path: Path, arguments: list[str], near: str) -> None:
    """`next` can be pasted for every group, and no command is named twice."""
    shown = run(tmp_path, *arguments)
    assert shown.code == USAGE
    assert f"Did you mean {near}" in shown.err
    body = run(tmp_path, *arguments, "--json").json
    assert (body["near"][0], body["next"]) == (near, f"claudemesh {near} --help")
    assert len(set(body["near"])) == len(body["near"])
    assert run(tmp_path, *body["next"].split()[1:]).code == 0


@pytest.mark.parametrize(
    ("names", "near"), [(["snd"], "send"), (["topic", "lst"], "topic list"), (["daemon", "send"], "send")]
)
def test_a_command_that_is_described_by_a_wrong_name_is_found(
    tmp_path: Path, names: list[str], near: str
) -> None:
    """`next` describes the near one."""
    body = run(tmp_path, "describe", *names, "--json")
    assert (body.code, body.json["near"][0]) == (USAGE, near)
    assert body.json["next"] == f"claudemesh describe {near}"
    assert run(tmp_path, *body.json["next"].split()[1:]).code == 0


def test_every_exit_code_is_explained(tmp_path: Path) -> None:
    """`help exit-codes` and the first help page list all of them."""
    codes = {value for name, value in vars(exits).items() if name.isupper()}
    items = run(tmp_path, "help", "exit-codes", "--json").json["items"]
    assert {item["code"] for item in items} == codes | {1}
    page = run(tmp_path, "help", "exit-codes").out
    lines = [line for line in page.splitlines() if not line.startswith("     ")]
    assert [int(line.split()[0]) for line in lines] == sorted(codes | {1})
    first = run(tmp_path, "--help").out.partition("Exit codes")[2]
    assert codes <= {int(number) for number in re.findall(r"\b\d+\b", first.partition("Options")[0])}
