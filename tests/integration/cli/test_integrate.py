"""`claudemesh integrate` and `claudemesh hook` as commands, beside a daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.cli import Ran, run
from tests.support.processes import REPOSITORY, Daemon, Mesh, mesh, until
from tests.support.waiting import WAIT_S


@pytest.fixture(scope="module")
def made() -> Generator[Mesh]:
    with mesh("alice", "bob") as running:
        yield running


def integrate(daemon: Daemon, user: Path, *arguments: str) -> Ran:
    """The command for a user whose configuration is below `user`."""
    user.mkdir(exist_ok=True)
    folders = {
        "HOME": str(user),
        "CLAUDE_CONFIG_DIR": str(user / ".claude"),
        "CODEX_HOME": str(user / ".codex"),
    }
    return run(daemon.home, "integrate", *arguments, **folders)


def hook(daemon: Daemon, event: str, **given: str) -> str:
    ran = run(daemon.home, "hook", event, stdin=json.dumps(given).encode())
    assert (ran.code, ran.err) == (0, "")
    return ran.out


def test_an_integration_is_shown_written_and_removed(made: Mesh, tmp_path: Path) -> None:
    """A dry run writes nothing, a second one changes nothing."""
    alice, user = made.daemons["alice"], tmp_path / "user"
    planned = integrate(alice, user, "codex", "--dry-run", "--json").json
    assert (planned["status"], planned["reach"]) == ("planned", "turn")
    assert "+[mcp_servers.claudemesh]" in planned["diff"] and list(user.iterdir()) == []
    written = integrate(alice, user, "codex")
    assert written.code == 0 and "+[mcp_servers.claudemesh]" in written.out and "/hooks" in written.err
    assert integrate(alice, user, "codex", "--json").json["status"] == "unchanged"
    removed = integrate(alice, user, "codex", "--uninstall", "--json").json
    assert removed["status"] == "removed" and removed["files"] == [str(user / ".codex" / "config.toml")]
    assert not (user / ".codex" / "config.toml").exists()


def test_a_second_registration_is_refused_with_the_command_that_removes_it(
    made: Mesh, tmp_path: Path
) -> None:
    """Nothing is written."""
    user = tmp_path / "user"
    (user / ".claude").mkdir(parents=True)
    server = {"mcpServers": {"mesh": {"command": "claudemesh", "args": ["mcp"]}}}
    (user / ".claude" / ".claude.json").write_text(json.dumps(server))
    ran = integrate(made.daemons["alice"], user, "claude", "--json")
    assert ran.code == 64
    assert (ran.json["error"], ran.json["next"]) == (
        "registered_already",
        "claude mcp remove --scope user mesh",
    )
    assert not (user / ".claude" / "skills").exists()


def test_the_first_client_of_a_host_can_make_a_mesh(tmp_path: Path) -> None:
    """Only when it is wanted: without a terminal and without --yes it is named, and none is made."""
    home, user = tmp_path / "home", tmp_path / "user"
    user.mkdir()
    where = {"HOME": str(user)}
    unasked = run(home, "integrate", "cursor", **where)
    assert unasked.code == 0 and "has no mesh" in unasked.err and not (home / "daemon").exists()
    try:
        ran = run(home, "integrate", "cursor", "--yes", "--json", **where)
        assert (ran.code, ran.json["mesh"], ran.json["status"]) == (0, "local", "unchanged")
        assert run(home, "whoami", "--json").json["mesh"] == "local"
    finally:
        run(home, "daemon", "down")


def test_a_hook_at_the_start_tells_the_session_and_what_waits_and_no_text(made: Mesh, tmp_path: Path) -> None:
    """With the client's new id after /clear; later prompts are told of each message once."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    cwd = str(tmp_path / "api")
    assert "this is bob in mesh" in hook(bob, "session-start", session_id="s-0", cwd=cwd)
    about = {"client": "codex", "reach": "pull", "cwd": cwd, "pid": os.getpid()}
    assert bob.request("POST", "/v1/sessions", about)[1]["name"] == "api"
    assert alice.send("bob/api", "INJECT", client_message_id="start", receipt="acked")[0] == 202
    until(lambda: any(one["client_message_id"] == "start" for one in bob.inbox()), "it arrives")
    started = json.loads(
        hook(bob, "session-start", session_id="s-1", cwd=cwd, hook_event_name="SessionStart")
    )
    output = started["hookSpecificOutput"]
    assert output["hookEventName"] == "SessionStart"
    assert "this is bob/api in mesh" in output["additionalContext"]
    assert "1 message waits, from alice" in output["additionalContext"]
    assert "INJECT" not in output["additionalContext"]
    [item] = bob.request("GET", "/v1/sessions")[1]["items"]
    assert (item["client_session_id"], item["reach"]) == ("s-1", "turn")
    told = json.loads(hook(bob, "prompt", session_id="s-1", cwd=cwd, hook_event_name="BeforeAgent"))
    assert told["hookSpecificOutput"]["hookEventName"] == "BeforeAgent"
    assert "1 new mesh message waits for you" in told["hookSpecificOutput"]["additionalContext"]
    assert hook(bob, "tool", session_id="s-1", cwd=cwd) == ""


def test_a_status_line_names_the_session_and_what_it_has_not_seen(made: Mesh, tmp_path: Path) -> None:
    """It marks no message: a person has seen a number and no text."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    for one in bob.request("GET", "/v1/sessions")[1]["items"]:
        bob.request("DELETE", f"/v1/sessions/{one['session_id']}")
    cwd = str(tmp_path / "bar")
    about = {"client": "claude-code", "reach": "turn", "cwd": cwd, "pid": os.getpid()}
    assert bob.request("POST", "/v1/sessions", about)[1]["name"] == "bar"
    assert hook(bob, "status-line", cwd=cwd) == "mesh: bob/bar\n"
    assert alice.send("bob/bar", "INJECT", client_message_id="bar")[0] == 202
    until(lambda: any(one["client_message_id"] == "bar" for one in bob.inbox()), "it arrives")
    assert hook(bob, "status-line", cwd=cwd) == "mesh: bob/bar, 1 unread\n"
    assert alice.send("bob", "for the host", client_message_id="host-bar")[0] == 202
    until(lambda: any(one["client_message_id"] == "host-bar" for one in bob.inbox()), "it arrives")
    assert hook(bob, "status-line", cwd=cwd) == "mesh: bob/bar, 2 unread\n"
    # A look at the number gives the session no message that another one would get.
    [item] = [one for one in bob.inbox() if one["client_message_id"] == "host-bar"]
    assert item["for_session"] is None
    assert bob.request("POST", "/v1/inbox/ack", {"ids": [item["id"]], "as": "shown"})[0] == 200
    assert [one["notified_at"] for one in bob.inbox() if one["client_message_id"] == "bar"] == [None]


def test_a_hook_that_waits_wakes_its_client_once_a_message_has_come(made: Mesh, tmp_path: Path) -> None:
    """One waits for a session, with a person at the client, and its notice holds no text of the message."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    cwd = str(tmp_path / "old")
    about = {"client": "claude-code", "reach": "turn", "cwd": cwd, "pid": os.getpid()}
    for one in bob.request("GET", "/v1/sessions")[1]["items"]:
        bob.request("DELETE", f"/v1/sessions/{one['session_id']}")
    name = bob.request("POST", "/v1/sessions", about)[1]["name"]
    assert run(bob.home, "hook", "wait", stdin=b"{}", CLAUDE_CODE_SESSION_ATTENDED="0").code == 0
    with_socket = {"CLAUDE_CODE_SESSION_ATTENDED": "1", "CLAUDE_CODE_MESSAGING_SOCKET": "/s"}
    assert run(bob.home, "hook", "wait", stdin=b"{}", **with_socket).code == 0
    attended = {name: value for name, value in os.environ.items() if not name.startswith("CLAUDE")}
    attended |= {"CLAUDE_CODE_ENTRYPOINT": "cli", "CLAUDEMESH_HOME": str(bob.home)}
    command = [sys.executable, "-m", "claudemesh", "hook", "wait"]
    with subprocess.Popen(
        command, env=attended, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=REPOSITORY, text=True
    ) as waiting:
        until(lambda: bob.request("GET", "/v1/sessions")[1]["items"][0]["reach"] == "push", "it waits")
        second = run(bob.home, "hook", "wait", stdin=b"{}", CLAUDE_CODE_SESSION_ATTENDED="1")
        assert (second.code, second.err, waiting.poll()) == (0, "", None)
        # As the server of the session does when its client has another id, after /clear.
        bob.request("POST", "/v1/sessions", {**about, "session_id": "cleared"})
        until(lambda: bob.request("GET", "/v1/sessions")[1]["items"][0]["reach"] == "push", "it still waits")
        assert bob.request("GET", "/v1/sessions")[1]["items"][0]["client_session_id"] == "cleared"
        assert alice.send(f"bob/{name}", "INJECT", client_message_id="waited", receipt="shown")[0] == 202
        assert waiting.wait(WAIT_S) == 2
        assert waiting.stderr is not None
        told = waiting.stderr.read()
    assert (
        told.startswith("claudemesh: 1 message waits for this session, from alice") and "INJECT" not in told
    )
    assert list(bob.root.glob("wait-*")) == []


def test_a_hook_is_silent_where_nothing_can_be_told(tmp_path: Path) -> None:
    """Without a mesh, a daemon, or input that is JSON: no prompt of a user is held up."""
    for stdin in (b"", b"{", b"[]"):
        ran = run(tmp_path / "home", "hook", "prompt", stdin=stdin)
        assert (ran.code, ran.out, ran.err) == (0, "", "")
