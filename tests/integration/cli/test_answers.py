"""JSON answers: each command is run for real, and prints exactly the fields that `describe` lists."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import click
import pytest

from claudemesh.cli.description import path_of, walk
from claudemesh.cli.main import cli
from tests.support.answers import check, command_of
from tests.support.cli import begin, run
from tests.support.processes import free_port

# Commands that the walk leaves out: `run` prints the output of its command, `mcp` and `hook` serve clients;
# the others change this machine, or need a copy of a home, and tests of their own compare their answers.
LEFT_OUT = {
    "run",
    "web",
    "mcp",
    "hook",
    "integrate",
    "daemon install-service",
    "daemon uninstall-service",
    "daemon accept-host",
    "daemon remint",
    "broker install-service",
    "broker setup",
    "broker uninstall-service",
    "peers accept",
    "daemon backup",
    "daemon restore",
}
# Paths to a command that has another path too.
SHORT = ("daemon inbox", "daemon outbox", "daemon uninstall")


class Walk:
    """Two homes and a broker, made by commands alone, and the commands that were run."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.data = folder / "data"
        self.homes = {name: folder / name for name in ("alice", "bob", "carol")}
        self.seen: set[str] = set()

    def say(self, who: str, *arguments: str, codes: tuple[int, ...] = (0,)) -> dict[str, object]:
        """Run a command as a member, with --json; its answer fits its declaration."""
        ran = run(self.homes[who], *arguments, "--json")
        assert ran.code in codes, (arguments, ran)
        check(arguments, ran.out)
        self.seen.add(" ".join(path_of(command_of(arguments))))
        found: dict[str, object] = json.loads(ran.out.splitlines()[0])
        return found

    def line(self, who: str, *arguments: str) -> None:
        """Start a command that follows; its first line fits its declaration."""
        with begin(self.homes[who], *arguments) as process:
            assert process.stdout is not None
            check(arguments, process.stdout.readline().decode())
        self.seen.add(" ".join(path_of(command_of(arguments))))


@pytest.fixture
def walked() -> Generator[Walk]:
    """Everything that is started is stopped."""
    folder = Path(tempfile.mkdtemp(prefix="cm-"))
    made = Walk(folder)
    try:
        yield made
    finally:
        for home in made.homes.values():
            run(home, "daemon", "down")
        run(made.homes["alice"], "broker", "down", "--data-dir", str(made.data))
        shutil.rmtree(folder, ignore_errors=True)


def test_every_command_prints_exactly_the_fields_that_it_declares(walked: Walk) -> None:
    """One after the other on a real mesh; a command that no step runs fails the test."""
    setting_up(walked)
    talking(walked)
    looking(walked)
    administering(walked)
    repairing(walked)
    ending(walked)
    every = {" ".join(path_of(context)) for context in walk(click.Context(cli, info_name="claudemesh"))}
    assert {path for path in every if not path.startswith(SHORT)} - walked.seen - LEFT_OUT == set()


def setting_up(walked: Walk) -> None:
    """From nothing to two members."""
    data = ["--data-dir", str(walked.data)]
    walked.say("alice", "broker", "up", "-d", "--listen", f"127.0.0.1:{walked.port}", *data)
    walked.say("alice", "broker", "up", "-d", *data)
    token = ["--admin-token-file", str(walked.data / "admin_token")]
    url = f"ws://127.0.0.1:{walked.port}"
    walked.say("alice", "mesh", "create", "team", "--name", "alice", "--broker", url, *token)
    walked.say("alice", "up", "-d")
    walked.say("alice", "daemon", "up", "-d")
    invite = walked.say("alice", "invite", "create")
    walked.say("bob", "join", str(invite["invite"]), "--name", "bob")
    walked.say("bob", "up", "-d")
    walked.say("bob", "wait", "--for", "online")


def talking(walked: Walk) -> None:
    """Messages of every kind."""
    for action in ("create", "subscribe", "unsubscribe"):
        walked.say("alice", "topic", action, "news")
    walked.say("alice", "topic", "show", "news")
    walked.say("alice", "topic", "post", "news", "v42 is out")
    walked.say("alice", "topic", "rekey", "news")
    walked.say("alice", "topic", "delete", "news", "--yes")
    walked.say("alice", "send", "bob", "one", "--id", "one", "--wait", "30000")
    walked.say("alice", "send", "bob", "two", "--meta", '{"a": 1}')
    walked.say("bob", "wait", "--for", "message=one")
    walked.say("bob", "reply", "1", "yes")
    walked.say("bob", "sessions", "list")
    walked.say("bob", "listen", "--since", "0", "--one")
    shared = walked.say("alice", "file", "send", str(walked.data / "broker.db"), "bob", "-m", "the database")
    walked.say("alice", "file", "list", "--sent")
    walked.say("bob", "wait", "--for", f"message={shared['client_message_id']}")
    walked.say("bob", "file", "get", str(shared["file_id"]), "--out", str(walked.data.parent / "copy.db"))
    walked.say("alice", "file", "delete", str(shared["file_id"]))
    walked.line("bob", "events", "--since", "0")
    walked.line("bob", "inbox", "-f", "--json")
    with begin(walked.homes["alice"], "request", "bob", "may I?", "--json") as asking:
        walked.say("bob", "listen", "--since", "2", "--one")
        walked.say("bob", "reply", "3", "go ahead")
        assert asking.stdout is not None
        check(["request"], asking.stdout.read().decode())
    walked.seen.add("request")


def looking(walked: Walk) -> None:
    """Lists and states."""
    for words in (
        ["inbox"],
        ["inbox", "show", "1"],
        ["history"],
        ["inbox", "ack", "1"],
        ["outbox"],
        ["file", "list"],
        ["outbox", "list"],
        ["outbox", "inspect", "one"],
        ["topic", "list"],
        ["peers"],
        ["whoami"],
        ["ping", "bob"],
        ["verify", "bob"],
        ["mesh", "list"],
        ["mesh", "use", "team"],
        ["invite", "list"],
        ["member", "list"],
        ["member", "role", "bob", "admin"],
        ["profile", "--status", "working"],
        ["status"],
        ["daemon", "status"],
        ["daemon", "ps"],
        ["ps"],
        ["daemon", "hooks"],
        ["daemon", "metrics"],
        ["logs", "-n", "5"],
        ["daemon", "logs", "-n", "5"],
        ["bugreport"],
        ["config", "check"],
        ["config", "show"],
        ["paths"],
        ["version"],
        ["help", "send"],
        ["help", "exit-codes"],
        ["describe"],
        ["describe", "send"],
        ["completion", "bash"],
        ["sdk", "typescript"],
    ):
        walked.say("alice", *words)
    walked.say("alice", "doctor", codes=(0, 69))


def administering(walked: Walk) -> None:
    """An operator's commands."""
    data = ["--data-dir", str(walked.data)]
    (invite,) = walked.say("alice", "broker", "invite", "list", "team", *data)["items"]  # type: ignore[misc]
    for words in (
        ["status"],
        ["web", "--no-open"],
        ["logs", "-n", "5"],
        ["config", "check"],
        ["config", "show"],
        ["mesh", "list"],
        ["mesh", "set", "team", "--message-retention-days", "30"],
        ["member", "list", "team"],
        ["invite", "revoke", "team", invite["invite_id"]],
        ["audit", "team"],
        ["check"],
        ["job", "list"],
        ["job", "run", "message-sweep"],
    ):
        walked.say("alice", "broker", *words, *data)


def repairing(walked: Walk) -> None:
    """Sends that wait while the broker is away, and commands that change the daemon."""
    data = ["--data-dir", str(walked.data)]
    walked.say("alice", "broker", "member", "revoke", "team", "bob", *data)
    walked.say("alice", "topic", "create", "repairs")
    walked.say("alice", "broker", "down", *data)
    walked.say("alice", "broker", "down", *data)
    for name in ("stuck", "lost"):
        walked.say("alice", "topic", "post", "repairs", name, "--id", name)
    walked.say("alice", "outbox", "drop", "lost")
    walked.say("alice", "outbox", "requeue", "stuck")
    walked.say("alice", "outbox", "prune", "--confirm")
    walked.say("alice", "daemon", "reload")
    walked.say("alice", "daemon", "rotate-token")
    listen = ["--listen", f"127.0.0.1:{walked.port}", "--public-url", f"ws://localhost:{walked.port}"]
    walked.say("alice", "broker", "up", "-d", *listen, *data)
    walked.say("alice", "daemon", "set-broker", f"ws://127.0.0.1:{walked.port}")
    walked.say("alice", "wait", "--for", "online")
    made = walked.say("alice", "invite", "create")
    walked.say("carol", "join", str(made["invite"]), "--name", "carol")
    walked.say("alice", "invite", "revoke", str(made["invite_id"]))
    walked.say("alice", "member", "revoke", "carol", "--yes")
    walked.say("alice", "mesh", "move", f"ws://localhost:{walked.port}")


def ending(walked: Walk) -> None:
    """Starts and stops."""
    walked.say("alice", "restart")
    walked.say("alice", "daemon", "restart")
    walked.say("alice", "wait", "--for", "online")
    walked.say("alice", "daemon", "rename", "alicia")
    walked.say("alice", "daemon", "rotate-keypair")
    walked.say("alice", "daemon", "archive-cleanup")
    for words in (["down"], ["daemon", "down"]):
        walked.say("alice", *words)
    walked.say("alice", "daemon", "reset", "--yes")
    walked.say("alice", "daemon", "recover")
    walked.say("alice", "up", "-d")
    walked.say("alice", "wait", "--for", "online")
    walked.say("alice", "leave", "--yes", "--force")
