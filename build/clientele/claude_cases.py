"""Claude Code on two hosts: its plugin, pushes, hooks and a conversation."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clientele.claude import Claude, claude
from clientele.places import ARCHIVE, claude_program, version_of
from clientele.stub import Stub
from clientele.suites import Case, Suite, reached, sent_to
from tests.support.processes import Mesh, until

_MANY: Final = 80


@dataclass(frozen=True)
class Bench:
    """Two hosts, and Claude Code at the second one."""

    hosts: Mesh
    claude: Claude
    model: Stub

    def send(self, text: str, name: str, receipt: str = "acked") -> str:
        """Send a message of alice to the session at bob, and return its id."""
        session = self.claude.session()
        assert session is not None
        return sent_to(self.hosts, session["name"], text, name, receipt)

    def reached(self, name: str, state: str) -> Mapping[str, Any]:
        """Wait until a message of alice has come so far, and return what she sees."""
        return reached(self.hosts, name, state)


def validates(it: Bench) -> None:
    """The plugin is valid, and the server starts."""
    folder = it.claude.home / ".claude" / "skills" / "claudemesh"
    assert "Validation passed" in it.claude.run("plugin", "validate", str(folder))
    assert "Connected" in it.claude.run("mcp", "list")


def push_wakes(it: Bench) -> None:
    """A push wakes an idle session, and the hook proves that the model got it."""
    with it.claude.screen():
        it.send("is the NEEDLE-1 deployed?", "wakes")
        it.reached("wakes", "shown")
        until(lambda: it.model.shown("NEEDLE-1"), "the text")


def push_bypass(it: Bench) -> None:
    """So it does where no permission is asked for."""
    with it.claude.screen("--dangerously-skip-permissions"):
        it.send("is the NEEDLE-2 deployed?", "bypass")
        it.reached("bypass", "shown")
        until(lambda: it.model.shown("NEEDLE-2"), "the text")


def push_midturn(it: Bench) -> None:
    """A session at work gets it behind the tool that runs."""
    with it.claude.screen() as drawn:
        drawn.enter('please [[Bash {"command": "sleep 4"}]]', lambda: it.model.shown("please [["))
        it.send("mid-turn NEEDLE-3", "midturn")
        it.reached("midturn", "shown")
        until(lambda: it.model.shown("NEEDLE-3"), "the text")


def clear(it: Bench) -> None:
    """After /clear the session is the same, with the new id of the client."""
    with it.claude.screen() as drawn:
        it.send("before NEEDLE-4", "before")
        it.reached("before", "shown")
        first = until(lambda: (it.claude.session() or {}).get("client_session_id"), "the id")
        drawn.enter(
            "/clear", lambda: (it.claude.session() or {}).get("client_session_id") not in (None, first)
        )
        it.send("after NEEDLE-5", "after")
        it.reached("after", "shown")


def many(it: Bench) -> None:
    """Eighty messages to a session at work are all shown, each once."""
    with it.claude.screen() as drawn:
        drawn.enter('please [[Bash {"command": "sleep 6"}]]', lambda: it.model.shown("please [["))
        names = [it.send(f"NUMBER-{number:02}.", f"many-{number:02}", "shown") for number in range(_MANY)]
        for name in names:
            it.reached(name, "shown")
        until(lambda: all(it.model.shown(f"NUMBER-{number:02}.") for number in range(_MANY)), "all texts")
        assert {it.model.most(f"NUMBER-{number:02}.") for number in range(_MANY)} == {1}


def killed(it: Bench) -> None:
    """A daemon that is killed behind a push, and started again, loses nothing."""
    bob = it.hosts.daemons["bob"]
    with it.claude.screen():
        it.send("killed NEEDLE-6", "killed")
        until(lambda: any(one["client_message_id"] == "killed" for one in bob.inbox()), "it is delivered")
        bob.kill()
        bob.start()
        bob.ready()
        it.reached("killed", "shown")
        until(lambda: it.model.shown("killed NEEDLE-6"), "the text")
        assert it.model.most("killed NEEDLE-6") == 1


def printed(it: Bench) -> None:
    """A run without a terminal ends by itself, and prints the answer alone."""
    assert it.claude.run("-p", "hello") == "Understood.\n"


def uninstall(it: Bench) -> None:
    """The home is as before, byte for byte."""
    it.claude.mesh("integrate", "claude", "--uninstall")
    assert list((it.claude.home / ".claude" / "skills").iterdir()) == []


@contextmanager
def _at(hosts: Mesh, program: Path, *members: str) -> Iterator[list[tuple[Claude, Stub]]]:
    """Claude Code at each of some hosts, in homes of their own."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="cm-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield [
            stack.enter_context(claude(program, ARCHIVE, folder / one, hosts.daemons[one])) for one in members
        ]


def _alone(program: Path, case: Callable[[Bench], None]) -> Case:
    def run(hosts: Mesh) -> None:
        with _at(hosts, program, "bob") as [(client, model)]:
            case(Bench(hosts, client, model))

    return run


def _conversation(program: Path) -> Case:
    """Two sessions on two hosts: one asks, the other is woken and answers, and the first is woken by that."""

    def run(hosts: Mesh) -> None:
        with _at(hosts, program, "alice", "bob") as [(asking, first), (asked, second)]:
            with asked.screen(), asking.screen() as drawn:
                drawn.enter(
                    f"please [[mesh_send {_question(asked)}]]", lambda: first.shown("please [[mesh_send")
                )
                row = reached(hosts, "question", "acked")
                until(lambda: first.shown("ANSWER-8"), "the answer is shown to the asking session")
            assert second.shown("QUESTION-8")
            [one] = row["recipients"]
            # `delivered_at` of the send is the time at which the broker has accepted it.
            times = [row["enqueued_at"], one["delivered_at"], one["shown_at"], one["acked_at"]]
            assert row["delivered_at"] and None not in times and times == sorted(times), row
            assert one["session"] == "project"

    return run


def _question(asked: Claude) -> str:
    """Return the arguments of a send whose text makes the model of the other session answer it."""
    session = asked.session()
    assert session is not None
    answer = json.dumps({"reply_to": "$ID", "message": "ANSWER-8", "idempotency_key": "answer"})
    question = {
        "to": f"bob/{session['name']}",
        "message": f"QUESTION-8 ((mesh_send {answer}))",
        "receipt": "acked",
        "expects_reply": True,
        "idempotency_key": "question",
    }
    return json.dumps(question)


_ALONE: Final[Mapping[str, Callable[[Bench], None]]] = {
    "plugin-validates": validates,
    "push-wakes-an-idle-session": push_wakes,
    "push-in-bypass-mode": push_bypass,
    "push-mid-turn": push_midturn,
    "clear": clear,
    "many-while-busy": many,
    "daemon-killed": killed,
    "print-mode-ends": printed,
    "uninstall": uninstall,
}


def waited(it: Bench) -> None:
    """A client without a socket is woken by a hook that waits behind its first turn."""
    with it.claude.screen() as drawn:
        drawn.enter("hello", lambda: it.model.shown("hello"))
        until(lambda: (it.claude.session() or {}).get("reach") == "push", "the hook waits")
        it.send("is the NEEDLE-7 deployed?", "waited")
        it.reached("waited", "shown")
        until(lambda: it.model.shown("NEEDLE-7"), "the text")


_BELOW: Final[Mapping[str, Callable[[Bench], None]]] = {
    "plugin-validates": validates,
    "hook-wakes-an-idle-session": waited,
    "print-mode-ends": printed,
    "uninstall": uninstall,
}


def _below() -> Suite:
    program = claude_program("claude-code-before")
    if program is None:
        return Suite("Claude Code (below the floor)", "below", None, {})
    cases = {name: _alone(program, case) for name, case in _BELOW.items()}
    return Suite("Claude Code (below the floor)", "below", version_of(program), cases)


def _suite(title: str, short: str, package: str) -> Suite:
    program = claude_program(package)
    if program is None:
        return Suite(title, short, None, {})
    cases = {name: _alone(program, case) for name, case in _ALONE.items()}
    return Suite(title, short, version_of(program), {**cases, "conversation": _conversation(program)})


def suites() -> list[Suite]:
    """Return the suites of the current version, the oldest one that can be woken, and one below that."""
    return [
        _suite("Claude Code (current)", "current", "claude-code"),
        _suite("Claude Code (floor)", "floor", "claude-code-floor"),
        _below(),
    ]
