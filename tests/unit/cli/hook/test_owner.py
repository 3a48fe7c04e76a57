"""The session whose client runs a hook."""

from __future__ import annotations

from typing import Any

from claudemesh.cli.hook.owner import owner

# A shell (10) with two clients (20, 30), each with a server (21, 31).
PARENTS = {21: 20, 31: 30, 20: 10, 30: 10}


def session(name: str, pid: int | None = None, known: str | None = None, cwd: str = "/p") -> dict[str, Any]:
    return {"name": name, "client": "claude-code", "pid": pid, "client_session_id": known, "cwd": cwd}


def found(sessions: list[dict[str, Any]], ancestors: list[int], **given: str) -> str | None:
    one = owner(sessions, {"cwd": "/p", **given}, ancestors, PARENTS.get)
    return None if one is None else str(one["name"])


def test_the_server_of_a_session_is_a_child_of_the_client_that_runs_the_hook() -> None:
    """Two clients of one shell are told apart, also after the id of one has changed."""
    both = [session("api", 21, "old"), session("api-2", 31, "s-1")]
    assert found(both, [20, 10], session_id="s-1") == "api"
    assert found(both, [30, 10]) == "api-2"


def test_where_processes_cannot_be_seen_the_id_or_the_only_session_of_the_directory_tells() -> None:
    """A guess between two is none."""
    both = [session("api", 98, "s-0"), session("api-2", 99, "s-1")]
    assert found(both, [40], session_id="s-1") == "api-2"
    assert found(both, [40], session_id="s-9") is None
    assert found([session("api", 99)], [40], session_id="s-9") == "api"
    assert found([session("api", 99, cwd="/q")], [40], session_id="s-9") is None
    assert found([session("api", 98), session("api-2", 99)], [40]) is None


def test_a_terminal_runs_no_hooks() -> None:
    """A person in the same directory is not taken for the agent."""
    person = {**session("p", 21), "client": "terminal"}
    assert found([person], [20]) is None
