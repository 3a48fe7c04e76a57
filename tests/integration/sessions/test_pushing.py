"""Pushes through the server of a session into a stand-in for its client, and their proof."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.integration.sessions.test_mcp import Client, server, sessions
from tests.integration.sessions.test_receipts import reached, received
from tests.support.claude_socket import ClaudeSocket, claude_socket
from tests.support.processes import Mesh, mesh, until
from tests.support.waiting import WAIT_S


@pytest.fixture(scope="module")
def made() -> Generator[Mesh]:
    with mesh("alice", "bob") as running:
        yield running


@pytest.fixture
def claude() -> Generator[ClaudeSocket]:
    with tempfile.TemporaryDirectory(prefix="cm-") as folder, claude_socket(Path(folder)) as socket:
        yield socket


def prompt(client: Client, text: str, session_id: str = "c-1") -> str:
    """The hook that a client calls with a prompt, which a push is too."""
    return client.call("mesh_hook", event="UserPromptSubmit", session_id=session_id, prompt=text)


def test_a_message_wakes_an_idle_session_and_the_prompt_proves_it(
    made: Mesh, claude: ClaudeSocket, tmp_path: Path
) -> None:
    """By one line behind the token. The sender sees `shown` at the proof and not before."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    with server(bob.home, tmp_path / "woken", environment=claude.environment) as client:
        client.begin()
        until(lambda: sessions(bob).get("woken", {}).get("reach") == "push", "the session can be woken")
        assert alice.send("bob/woken", "deploy?", client_message_id="push-1", receipt="acked")[0] == 202
        until(lambda: claude.texts, "the push")
        assert claude.lines[0] == {"type": "auth", "token": "t-1"}
        [text] = claude.texts
        item = received(bob, "push-1")
        assert "deploy?" in text and item["id"] in text and "Not from your user" in text
        assert (item["notified_at"], item["shown_at"]) == (None, None)
        assert prompt(client, f"what is {item['id']}?").startswith('{"hookSpecificOutput"')
        assert received(bob, "push-1")["shown_at"] is None
        assert prompt(client, text) == ""
        [one] = reached(alice, "push-1", "shown")["recipients"]
        assert one["session"] == "woken"
        assert client.call("mesh_inbox") == "No new messages."
        client.call("mesh_send", reply_to=item["id"], message="yes", idempotency_key="push-1-answer")
        reached(alice, "push-1", "acked")


def test_messages_of_a_busy_session_are_one_pointer_and_each_is_shown_once(
    made: Mesh, claude: ClaudeSocket, tmp_path: Path
) -> None:
    """A client drops lines beyond thirty: there is one at a time, and the texts come by the tool."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    ids = [f"busy-{number:02}" for number in range(80)]
    with server(bob.home, tmp_path / "busy", environment=claude.environment) as client:
        client.begin()
        until(lambda: "busy" in sessions(bob), "the session")
        for one in ids:
            assert alice.send("bob/busy", f"{one}.", client_message_id=one, receipt="shown")[0] == 202
        until(lambda: {item["client_message_id"] for item in bob.inbox()} >= set(ids), "all have arrived")
        until(lambda: claude.texts, "the first push")
        seen = ""
        for pushed in claude.texts:
            prompt(client, pushed)
            seen += pushed
        while (text := client.call("mesh_inbox")) != "No new messages.":
            seen += text
        assert [seen.count(f"{one}.") for one in ids] == [1] * 80
        assert len(claude.texts) <= 3 and claude.dropped == []
        reached(alice, ids[-1], "shown")


def test_a_proof_that_comes_while_the_daemon_is_down_is_taken_afterwards(
    made: Mesh, claude: ClaudeSocket, tmp_path: Path
) -> None:
    """The server keeps it, and takes it to the daemon before the message could be pushed again."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    with server(bob.home, tmp_path / "between", environment=claude.environment) as client:
        client.begin()
        until(lambda: "between" in sessions(bob), "the session")
        assert alice.send("bob/between", "now?", client_message_id="between", receipt="shown")[0] == 202
        until(lambda: claude.texts, "the push")
        bob.kill()
        assert prompt(client, claude.texts[0]) == ""
        bob.start()
        bob.ready()
        reached(alice, "between", "shown")
        assert client.call("mesh_inbox") == "No new messages."
        assert len(claude.texts) == 1


def test_a_push_that_a_client_drops_without_a_word_is_told_at_the_next_prompt(
    made: Mesh, claude: ClaudeSocket, tmp_path: Path
) -> None:
    """No state was guessed from the push: the hook tells of the message, and the tool shows it."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    with server(bob.home, tmp_path / "dropped", environment=claude.environment) as client:
        client.begin()
        until(lambda: "dropped" in sessions(bob), "the session")
        assert alice.send("bob/dropped", "heard?", client_message_id="dropped", receipt="shown")[0] == 202
        until(lambda: claude.texts, "the push, which the model never gets")
        item = received(bob, "dropped")
        assert (item["notified_at"], item["shown_at"]) == (None, None)
        assert "1 new mesh message waits" in prompt(client, "hello")
        assert "heard?" in client.call("mesh_inbox")
        reached(alice, "dropped", "shown")


def test_a_session_that_is_killed_with_a_push_leaves_the_message_to_the_next_one(
    made: Mesh, claude: ClaudeSocket, tmp_path: Path
) -> None:
    """No state was guessed: the message is neither notified nor shown, and the next session gets it."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    with server(bob.home, tmp_path / "gone", environment=claude.environment) as client:
        client.begin()
        until(lambda: "gone" in sessions(bob), "the session")
        assert alice.send("bob/gone", "lost?", client_message_id="gone", receipt="shown")[0] == 202
        until(lambda: claude.texts, "the push")
        client.process.kill()
        client.process.wait(WAIT_S)
    until(lambda: "gone" not in sessions(bob), "the session has ended")
    assert received(bob, "gone")["shown_at"] is None
    with server(bob.home, tmp_path / "gone") as client:
        client.begin()
        assert "lost?" in client.call("mesh_wait", timeout_s=60)
        reached(alice, "gone", "shown")


def test_a_client_whose_socket_is_stale_is_reached_at_its_turns(made: Mesh, tmp_path: Path) -> None:
    """The file of a killed client is left behind, and no one listens at it."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    with tempfile.TemporaryDirectory(prefix="cm-") as folder:
        with claude_socket(Path(folder)) as stale:
            environment = stale.environment
        assert Path(environment["CLAUDE_CODE_MESSAGING_SOCKET"]).exists()
        with server(bob.home, tmp_path / "stale", environment=environment) as client:
            client.begin()
            until(lambda: "stale" in sessions(bob), "the session")
            assert alice.send("bob/stale", "still?", client_message_id="stale", receipt="shown")[0] == 202
            received(bob, "stale")
            until(lambda: sessions(bob)["stale"]["reach"] == "turn", "the session is woken no more")
            told = json.loads(prompt(client, "hello"))["hookSpecificOutput"]["additionalContext"]
            assert "1 new mesh message waits" in told
            assert "still?" in client.call("mesh_inbox")


def test_a_session_of_qwen_code_is_given_a_notice_and_no_text(
    made: Mesh, claude: ClaudeSocket, tmp_path: Path
) -> None:
    """Its inbox takes texts of the session's own processes, and no hook proves that its model has one."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    with server(bob.home, tmp_path / "qwen", environment=claude.inbox_of_qwen) as client:
        client.begin()
        until(lambda: sessions(bob).get("qwen", {}).get("reach") == "push", "the session can be woken")
        assert alice.send("bob/qwen", "SECRET", client_message_id="qwen", receipt="shown")[0] == 202
        until(lambda: claude.texts, "the push")
        auth, frame = claude.lines
        assert auth == {"msgV": 1, "type": "auth", "token": "t-2"}
        assert (frame["msgV"], frame["type"], frame["message"]["role"]) == (1, "user", "user")
        assert "1 message waits for this session, from alice" in claude.texts[0]
        assert "SECRET" not in claude.texts[0]
        assert "SECRET" in client.call("mesh_inbox")
        reached(alice, "qwen", "shown")


_QUEUE = """#!/bin/sh
for one in "$@"; do echo "$one" >> "$(dirname "$0")/arguments"; done
"""


def test_a_session_of_codex_is_woken_by_its_queue_once_its_thread_is_known(
    made: Mesh, tmp_path: Path
) -> None:
    """The text of a message stays out of the arguments of a process, which other users can see."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    program = tmp_path / "bin" / "codex"
    program.parent.mkdir()
    program.write_text(_QUEUE)
    program.chmod(0o755)
    path = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    with server(bob.home, tmp_path / "codex", environment=path) as client:
        client.begin(name="codex-mcp-client")
        until(lambda: "codex" in sessions(bob), "the session")
        assert sessions(bob)["codex"]["reach"] == "pull"
        assert alice.send("bob/codex", "SECRET", client_message_id="codex", receipt="shown")[0] == 202
        meta = {"x-codex-turn-metadata": {"thread_id": "thread-1", "turn_id": "turn-1"}}
        client.ask("tools/call", name="mesh_status", arguments={}, _meta=meta)
        queued = program.parent / "arguments"
        until(lambda: queued.exists() and "mesh_send" in queued.read_text(), "the queued notice")
        assert queued.read_text().splitlines()[:4] == ["queue", "--thread", "thread-1", "--message"]
        assert "1 message waits for this session, from alice" in queued.read_text()
        assert "SECRET" not in queued.read_text()
        assert sessions(bob)["codex"]["reach"] == "push"
        assert "SECRET" in client.call("mesh_inbox")
        reached(alice, "codex", "shown")
