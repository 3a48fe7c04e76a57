"""`claudemesh hook`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import click
import orjson

from claudemesh.cli import answers
from claudemesh.cli.options import mesh_option
from claudemesh.client.errors import ClientError, DaemonNotRunning

_EVENTS: Final = ("session-start", "prompt", "tool", "wait", "status-line")
# The code with which a hook in the background wakes its client.
_WAKES: Final = 2
_NAMES: Final = {"session-start": "SessionStart", "prompt": "UserPromptSubmit", "tool": "PostToolUse"}
_MOST_COUNTED: Final = 99
_MOST_INPUT: Final = 4 << 20


@click.command()
@click.argument("event", type=click.Choice(_EVENTS))
@mesh_option
@answers.none("The answer is that of a hook, as the client of the agent reads it.")
def hook(event: str, mesh: str | None) -> int:
    """Answer a hook of an agent's client with facts of this host.

    `claudemesh integrate` writes hooks that run this command. Standard input is the JSON that clients give to
    a hook. The answer is empty, or a context for the model: the name of the session and the number of
    messages that wait, never their text. A failure is silent, so that no prompt of the user is held up.

    `wait` waits for a message, for a client whose idle sessions cannot be woken otherwise. It ends with code
    2 and a notice on standard error when one has come. `status-line` prints a line for the status bar of the
    client: the session, the link, and the number of messages that it has not seen.

    \b
    Examples:
      echo '{"cwd": "/src/api"}' | claudemesh hook session-start
      echo '{"cwd": "/src/api"}' | claudemesh hook status-line
    """
    given = _given()
    name = given.get("hook_event_name")
    try:
        if event == "wait":
            return _wait(mesh, given)
        if event == "status-line":
            sys.stdout.write(f"{_status_line(mesh, given)}\n")
            return 0
        text = _answer(event, mesh, given, name if isinstance(name, str) else _NAMES[event])
    except (ClientError, OSError, ValueError, KeyError):
        return 0
    if text:
        sys.stdout.write(f"{text}\n")
    return 0


def _wait(mesh: str | None, given: Mapping[str, Any]) -> int:
    # Imported here: the client runs the hook behind each turn, and most of them end at once.
    from claudemesh.cli.hook.waiter import is_wanted, wait

    if not is_wanted(os.environ):
        return 0
    from claudemesh.cli.hook.owner import own_ancestors, owner, parent_of
    from claudemesh.client.local import LocalClient
    from claudemesh.home.paths import daemon_paths

    client = LocalClient(mesh)
    session = owner(client.items("/v1/sessions"), given, own_ancestors(), parent_of)
    text = None if session is None else wait(client, session, daemon_paths(client.slug).root)
    if text is None:
        return 0
    sys.stderr.write(f"{text}\n")
    return _WAKES


def _status_line(mesh: str | None, given: Mapping[str, Any]) -> str:
    from claudemesh.cli.hook.owner import own_ancestors, owner, parent_of
    from claudemesh.client.local import LocalClient

    try:
        client = LocalClient(mesh)
        health = client.get("/v1/health")
        session = owner(client.items("/v1/sessions"), given, own_ancestors(), parent_of)
        # A list of the messages of a session would give it those for the host.
        waits = _waiting(client, session)
    except DaemonNotRunning as error:
        return f"mesh: {'the daemon is down' if error.may_start else 'the membership of this host has ended'}"
    name = health["name"] if session is None else f"{health['name']}/{session['name']}"
    link = "" if health["connected"] else ", offline"
    number, more = min(waits["count"], _MOST_COUNTED), waits["more"] or waits["count"] > _MOST_COUNTED
    waiting = f", {number}{'+' if more else ''} unread" if number else ""
    return f"mesh: {name}{link}{waiting}"


def _given() -> Mapping[str, Any]:
    if sys.stdin is None or sys.stdin.isatty():
        return {}
    try:
        found = orjson.loads(sys.stdin.buffer.read(_MOST_INPUT))
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _answer(event: str, mesh: str | None, given: Mapping[str, Any], name: str) -> str:
    # Imported here: a shell that completes the command needs no client.
    from claudemesh.cli.hook.owner import own_ancestors, owner, parent_of
    from claudemesh.cli.mcp.news import as_context, news_for
    from claudemesh.client.local import LocalClient

    client = LocalClient(mesh)
    session = owner(client.items("/v1/sessions"), given, own_ancestors(), parent_of)
    if session is not None:
        _describe(client, session, given)
    if event == "session-start":
        return as_context(name, _welcome(client, session))
    if session is None:
        return ""
    news = news_for(client, session["session_id"])
    text = as_context(name, news.text)
    if text:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
        client.post(f"/v1/sessions/{session['session_id']}/told", {"through": news.through})
    return ""


def _describe(client: Any, session: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Tell the daemon the client's id of the session, and that hooks run in it."""
    known, reach = given.get("session_id"), session["reach"]
    if session["pid"] is None or (session["client_session_id"] == known and reach != "pull"):
        return
    about = {name: session[name] for name in ("client", "client_version", "cwd", "pid")}
    about |= {"session_id": known, "reach": "turn" if reach == "pull" else reach}
    client.post("/v1/sessions", {name: value for name, value in about.items() if value})


def _welcome(client: Any, session: Mapping[str, Any] | None) -> str:
    from claudemesh.cli.mcp.news import READ_THEM, counted, names

    health = client.get("/v1/health")
    link = "connected" if health["connected"] else "not connected now; sends wait on its disk"
    waiting = _waiting(client, session)
    name = health["name"] if session is None else f"{health['name']}/{session['name']}"
    text = f"claudemesh: this is {name} in mesh {health['mesh']}, {link}."
    if not waiting["count"]:
        return text
    count = counted(waiting["count"], more=waiting["more"])
    return f"{text} {count}, from {names(waiting['senders'])}. {READ_THEM}"


def _waiting(client: Any, session: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the number of the messages that wait for a session, or for the host without one."""
    if session is not None:
        found: Mapping[str, Any] = client.get(f"/v1/sessions/{session['session_id']}/news", told="true")
        return found
    page = client.get("/v1/inbox", unseen="true", limit=100)
    items = [one for one in page["items"] if one["to_session"] is None]
    senders = sorted({one["sender_name"] for one in items})
    return {"count": len(items), "more": page["next"] is not None, "senders": senders}
