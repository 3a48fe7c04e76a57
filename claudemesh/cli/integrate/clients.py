"""Clients of agents: the files of each that an integration changes (docs/agents.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from claudemesh.cli.integrate import claude
from claudemesh.cli.integrate.files import Change, Format, merged, read, restored
from claudemesh.cli.integrate.installed import Look, in_file, in_plugin
from claudemesh.cli.integrate.places import Place
from claudemesh.cli.integrate.settings import NAME, json_settings, toml_settings

Reach: TypeAlias = Literal["push", "turn", "pull"]
_SECONDS: Final = 10
_MILLISECONDS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Client:
    """A client: how messages reach its sessions, and the changes that add and remove the integration."""

    title: str
    reach: Reach
    install: Callable[[Place], Sequence[Change]]
    remove: Callable[[Place], Sequence[Change]]
    # Looks at an integration that is there.
    look: Look
    # Sentences for the user once it is installed.
    notes: Sequence[str] = ()
    # Returns the other registrations of the server, each with the command that removes it.
    others: Callable[[Place], Sequence[tuple[str, str]]] = lambda place: ()


def _hooks(place: Place, events: Mapping[str, str], timeout: int) -> dict[str, dict[str, Any]]:
    """Return a group of hooks for each event of a client."""
    same = {"name": NAME, "type": "command", "timeout": timeout}
    return {event: {"hooks": [{**same, "command": place.hook(own)}]} for event, own in events.items()}


def _codex(place: Place) -> tuple[Path, Format]:
    events = {"SessionStart": "session-start", "UserPromptSubmit": "prompt"}
    hooks = _hooks(place, events, _SECONDS)
    for group in hooks.values():
        del group["hooks"][0]["name"]
    # The client keeps its variables from its servers. This one says where its sessions are.
    server = {**place.server, "env_vars": ["CODEX_HOME"]}
    return place.folder(".codex", "CODEX_HOME") / "config.toml", toml_settings(server, hooks)


def _gemini(place: Place) -> tuple[Path, Format]:
    events = {"SessionStart": "session-start", "BeforeAgent": "prompt", "AfterTool": "tool"}
    form = json_settings(place.server, _hooks(place, events, _MILLISECONDS))
    return place.folder(".gemini") / "settings.json", form


def _qwen(place: Place) -> tuple[Path, Format]:
    events = {"SessionStart": "session-start", "UserPromptSubmit": "prompt"}
    form = json_settings(place.server, _hooks(place, events, _MILLISECONDS))
    return place.folder(".qwen") / "settings.json", form


def _cursor(place: Place) -> tuple[Path, Format]:
    return place.folder(".cursor") / "mcp.json", json_settings(place.server, {})


def _one_file(title: str, reach: Reach, found: Callable[[Place], tuple[Path, Format]], *notes: str) -> Client:
    return Client(
        title,
        reach,
        lambda place: [merged(*found(place))],
        lambda place: [restored(*found(place))],
        in_file(found),
        notes,
    )


def _claude_install(place: Place) -> list[Change]:
    folder = claude.folder(place)
    return [
        Change(folder / name, read(folder / name), text.encode())
        for name, text in claude.files(place, waits=claude.needs_waiter()).items()
    ]


def _claude_remove(place: Place) -> list[Change]:
    folder = claude.folder(place)
    return [Change(folder / name, read(folder / name), None) for name in claude.files(place)]


CLIENTS: Final[Mapping[str, Client]] = {
    "claude": Client(
        "Claude Code",
        "push",
        _claude_install,
        _claude_remove,
        in_plugin,
        (
            "Start a new session of Claude Code, or type /reload-plugins in one that runs. "
            f"The tools {claude.TOOL}mesh_send and {claude.TOOL}mesh_ack ask before they run; "
            f'the rule "{claude.TOOL}mesh_send" in permissions.allow lets them.',
        ),
        claude.other_registrations,
    ),
    "codex": _one_file(
        "Codex",
        "turn",
        _codex,
        "Start Codex and trust the two hooks with /hooks. They do not run before.",
    ),
    "gemini": _one_file("Gemini CLI", "turn", _gemini, "Start a new session of Gemini CLI."),
    "qwen": _one_file("Qwen Code", "turn", _qwen, "Start a new session of Qwen Code."),
    "cursor": _one_file("Cursor", "pull", _cursor, "Turn the server on in the settings of Cursor."),
}
