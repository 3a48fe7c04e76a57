"""A user's commands, one after the other: what they print, how they end, and what went through."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.audit import wait_received
from tests.support.cli import homes, run
from tests.support.living import paths_in
from tests.support.processes import REPOSITORY, Mesh, mesh

OK, USAGE, UNAVAILABLE, CONFIGURATION = 0, 64, 69, 78
LINE = re.compile(r"queued [0-9A-Z]{26}\n")


def test_send_and_inbox_in_both_directions(pair: Mesh) -> None:
    """Text as an argument, text on stdin, and what the other one reads."""
    alice, bob = homes(pair)
    assert LINE.fullmatch(run(alice, "send", "bob", "hello bob").out)
    sent = run(alice, "send", "bob", "-", "--json", stdin="from stdin\nsecond line ü\n".encode())
    assert sent.code == OK
    wait_received(pair.daemons["bob"], [sent.json["client_message_id"]])
    shown = run(bob, "inbox").out
    assert re.search(r"\n\d+\talice\tyou\t.*\thello bob\n", shown)
    assert "from stdin\\x0asecond line ü\\x0a\n" in shown
    bodies = [item["body"] for item in run(bob, "inbox", "--json").json["items"]]
    assert bodies[-1] == "from stdin\nsecond line ü\n"


SENDS = [
    (["send", "bob", "plain"], 0),
    (["send", "bob", 'quotes " and \\ and ü 🛰', "--json"], 0),
    (["send", "#all", "to all", "--id", "same-id"], 0),
    (["send", "#all", "another text", "--id", "same-id"], USAGE),
    (["send", "nobody-here", "x"], USAGE),
    (["send", "nobody-here", "x", "--json"], USAGE),
    (["send", "#Bad", "x"], USAGE),
    (["send", "bob", "x", "--mesh", "unknown"], CONFIGURATION),
    (["send", "bob", "x", "--wait", "30000", "--json"], 0),
    (["send", "bob", "x", "--id", "with space"], USAGE),
]


@pytest.mark.parametrize(("argv", "code"), SENDS)
def test_the_fast_path_says_what_the_full_command_line_says(pair: Mesh, argv: list[str], code: int) -> None:
    """The same output, to the byte but for the ids that were minted, and the same exit code."""
    alice, _ = homes(pair)
    minted = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}|\"history_id\":\d+")
    quick, full = run(alice, *argv), run(alice, *argv, full=True)
    assert quick.code == full.code == code
    if "same-id" not in argv or code:
        assert minted.sub("ID", quick.out) == minted.sub("ID", full.out)
    assert minted.sub("ID", quick.err) == minted.sub("ID", full.err)


def test_a_body_cannot_drive_the_readers_terminal(pair: Mesh) -> None:
    """Escape sequences are spelt out; programs get them as they are."""
    alice, bob = homes(pair)
    sent = run(alice, "send", "bob", "\x1b]0;owned\x07\x1b[2J", "--json")
    wait_received(pair.daemons["bob"], [sent.json["client_message_id"]])
    assert "\x1b" not in run(bob, "inbox").out


def test_topics_from_the_shell(pair: Mesh) -> None:
    """Create, subscribe, post, list, unsubscribe."""
    alice, bob = homes(pair)
    assert run(alice, "topic", "create", "deploys").out == "created #deploys\n"
    assert run(bob, "topic", "subscribe", "deploys").out == "subscribed to deploys\n"
    posted = run(alice, "topic", "post", "deploys", "v42 is out", "--id", "v42")
    assert posted.out == "queued v42\n"
    wait_received(pair.daemons["bob"], ["v42"])
    shown = run(bob, "inbox", "--topic", "deploys").out
    assert re.search("alice\t#deploys\t.*\tv42 is out\n", shown)
    assert "deploys\ttopic\tyes\t1\there\t" in run(bob, "topic", "list").out
    assert run(bob, "topic", "unsubscribe", "deploys").code == OK
    assert run(bob, "topic", "subscribe", "nowhere").code == USAGE


def test_peers_and_status_as_table_and_json(pair: Mesh) -> None:
    """Tables where people look, JSON where programs do."""
    alice, _ = homes(pair)
    names = [line.split("\t")[0] for line in run(alice, "peers").out.splitlines()]
    assert names == ["NAME", "alice", "bob"]
    for option in ("--no-headers", "-q"):
        for arguments in (["peers", option], [option, "peers"]):
            assert [line.split("\t")[0] for line in run(alice, *arguments).out.splitlines()] == names[1:]
    assert {item["name"] for item in run(alice, "peers", "--json").json["items"]} == {"alice", "bob"}
    status = run(alice, "status", "--json").json
    assert (status["mesh"], status["name"], status["connected"]) == ("demo", "alice", True)
    assert "connected to ws://127.0.0.1" in run(alice, "status").out


def test_outbox_commands_for_what_is_stuck(pair: Mesh) -> None:
    """List, inspect, requeue and drop; a done row is left alone."""
    alice, _ = homes(pair)
    client_message_id = run(alice, "send", "bob", "done soon", "--wait", "30000", "--json").json[
        "client_message_id"
    ]
    assert run(alice, "daemon", "outbox", "inspect", client_message_id, "--json").json["status"] == "done"
    # The second is the form of version 0.1.0.
    for given in ([client_message_id], ["--id", client_message_id]):
        refused = run(alice, "outbox", "requeue", *given)
        assert refused.code == USAGE
        assert "only a dead or a pending one" in refused.err
    for given in ([], ["one", "--id", "two"]):
        assert "the ID of one send" in run(alice, "outbox", "requeue", *given).err
    assert run(alice, "daemon", "outbox", "drop", "no-such-row").code == USAGE
    assert client_message_id in run(alice, "daemon", "outbox", "list", "--status", "done").out


def test_without_a_mesh_every_command_says_how_to_begin(tmp_path: Path) -> None:
    """Exit 78 and the next command."""
    for arguments in (["send", "bob", "hi"], ["inbox"], ["peers"], ["daemon", "up"], ["status"]):
        done = run(tmp_path, *arguments)
        assert done.code == CONFIGURATION, arguments
        assert "claudemesh join" in done.err


def test_without_a_daemon_a_send_says_how_to_start_one(pair: Mesh, tmp_path: Path) -> None:
    """There is no silent second path."""
    alice, _ = homes(pair)
    folder = tmp_path / "daemon" / "demo"
    folder.mkdir(parents=True)
    (folder / "membership.json").write_bytes((alice / "daemon" / "demo" / "membership.json").read_bytes())
    done = run(tmp_path, "send", "bob", "hi")
    assert (done.code, done.out) == (UNAVAILABLE, "")
    assert "claudemesh daemon up -d" in done.err
    as_json = run(tmp_path, "send", "bob", "hi", "--json")
    assert (as_json.code, as_json.json["error"]) == (UNAVAILABLE, "daemon_not_running")


def test_detached_with_its_own_broker_from_an_empty_home(tmp_path: Path) -> None:
    """One command makes a mesh on one machine; files are private; down stops it."""
    os.chmod(tmp_path, 0o700)
    home = Path(os.path.realpath(tmp_path)) / "h"
    with_broker = ["daemon", "up", "-d", "--with-broker", "--name", "solo"]
    started = run(home, *with_broker, CLAUDEMESH_BROKER_LISTEN="127.0.0.1:0")
    try:
        assert (started.code, started.err) == (OK, "")
        assert "runs already" in run(home, *with_broker).out
        assert run(home, "send", "#all", "hello", "--wait", "30000").out.startswith("done ")
        for path in paths_in(home):
            if not path.is_symlink() and path.name not in ("schema_version",):
                assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    finally:
        assert run(home, "daemon", "down").code == OK
    assert run(home, "status").code == UNAVAILABLE


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["send"], "TO"),
        (["send", "bob", "x", "--priority", "urgent"], "urgent"),
        (["send", "bob", "x", "--wait", "soon"], "soon"),
        (["send", "bob", "x", "--meta", "{"], "--meta"),
        (["nonsense"], "nonsense"),
        (["inbox", "--limit", "0"], "--limit"),
        (["invite", "create", "--expires", "soon"], "24h"),
        (["mesh", "create", "Bad Slug"], "slug"),
        (["mesh", "create", "ok", "--broker", "http://x"], "ws://"),
        (["mesh", "create", "ok", "--broker", "ws://example.org:1"], "--insecure"),
        (["mesh", "create", "ok", "--broker", "wss://example.org:1"], "--admin-token-file"),
        (["mesh", "create", "ok", "--admin-token-file", "/no/such/file"], "/no/such/file"),
        (["broker", "mesh", "list", "--broker", "ws://x:y"], "malformed"),
        (["join", "claudemesh://join/xxxx"], "invite"),
        (["join", "not a link"], "invite"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_64(tmp_path: Path, arguments: list[str], named: str) -> None:
    """It names what is wrong; never a traceback; nothing is left behind."""
    done = run(tmp_path, *arguments)
    assert done.code == USAGE
    assert named in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.rglob("membership.json")) == []


def test_every_command_has_help(tmp_path: Path) -> None:
    """`--help` teaches, for each command and group."""
    from claudemesh.cli.main import COMMANDS

    assert "First steps" in run(tmp_path, "--help").out
    for name in (name for commands in COMMANDS.values() for name in commands):
        shown = run(tmp_path, name, "--help")
        assert shown.code == OK
        assert "Usage: claudemesh" in shown.out


@pytest.mark.parametrize("group", [[], ["daemon"], ["topic"], ["broker", "mesh"]])
def test_a_group_without_a_command_shows_its_help(group: list[str], tmp_path: Path) -> None:
    """The page of `--help`, on stderr, and an exit code that shows that nothing was done."""
    shown = run(tmp_path, *group)
    assert (shown.code, shown.out) == (USAGE, "")
    assert shown.err == run(tmp_path, *group, "--help").out


def test_light_commands_import_nothing_heavy() -> None:
    """`send` and `version` cost what they need: held on modules, not on time."""
    program = (
        "import sys; from claudemesh.cli.main import main; main([*sys.argv[1:]]); "
        "heavy = {'asyncio', 'msgspec', 'nacl', 'starlette', 'websockets', 'uvicorn', 'rfc8785'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    for arguments in (["version"], ["send", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], cwd=REPOSITORY, capture_output=True, text=True
        )
        assert done.stdout.splitlines()[-1] == "[]", (arguments, done.stdout, done.stderr)
    assert json.loads(run(Path("/nonexistent"), "version", "--json").out)["version"]


def test_an_invite_is_taken_from_stdin_where_no_other_user_sees_it() -> None:
    """All users can read command lines, and the first host that joins by a link uses it up."""
    with mesh("alice", start=False) as made:
        link = json.loads(made.cli(made.daemons["alice"], "invite", "create", "--json"))["invite"]
        done = run(made.root / "bob", "join", "-", "--name", "bob", stdin=f"{link}\n".encode())
        assert (done.code, done.out) == (0, "joined mesh demo as bob\n")


def test_what_was_parsed_of_a_pasted_invite_is_what_is_sent() -> None:
    """A mail wraps the link and puts it between brackets; broker and membership get the link itself."""
    with mesh("alice", start=False) as made:
        link = json.loads(made.cli(made.daemons["alice"], "invite", "create", "--json"))["invite"]
        wrapped = "\r\n".join(link[at : at + 72] for at in range(0, len(link), 72))
        pasted = f"\ufeffYour invite:\r\n<{wrapped}>.\r\n"
        done = run(made.root / "bob", "join", "-", "--name", "bob", stdin=pasted.encode())
        assert (done.code, done.out) == (0, "joined mesh demo as bob\n"), done.err
        membership = json.loads((made.root / "bob/daemon/demo/membership.json").read_bytes())
        assert membership["invite"] == link


def test_a_password_in_the_command_line_of_a_broker_is_pointed_out() -> None:
    with mesh() as made:
        url = "postgresql://user:hunter2@127.0.0.1:1/none"
        done = run(made.root / "x", "broker", "up", "--database-url", url, "--listen", "127.0.0.1:0")
    assert done.code != 0
    assert "CLAUDEMESH_BROKER_DATABASE_URL" in done.err
    assert "hunter2" not in done.err + done.out
