"""Integrations that are installed: the command that a client starts, and hooks that are not there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from claudemesh.cli.integrate import claude
from claudemesh.cli.integrate.files import Format, read
from claudemesh.cli.integrate.jsontext import parse
from claudemesh.cli.integrate.places import Place
from claudemesh.cli.integrate.settings import NAME


@dataclass(frozen=True, slots=True)
class Installed:
    """An integration in a client's configuration."""

    path: Path
    command: Sequence[str]
    # Events of the client whose hook is missing.
    missing_hooks: Sequence[str] = ()


Look: TypeAlias = Callable[[Place], Installed | None]


def in_file(found: Callable[[Place], tuple[Path, Format]]) -> Look:
    """Return the look at a settings file. It raises `ValueError` for one that cannot be read."""

    def look(place: Place) -> Installed | None:
        path, form = found(place)
        raw = read(path)
        if raw is None:
            return None
        text = raw.decode()
        values, wanted = form.values(text), form.values(form.merge(form.empty))
        server = _server(values)
        if server is None:
            return None
        # An event has a hook of claudemesh as far as its groups change without the entries.
        others = _hooks(form.values(form.strip(text)))
        events = [event for event, groups in _hooks(values).items() if groups != others.get(event)]
        lacking = [event for event in wanted.get("hooks", {}) if event not in events]
        return Installed(path, _command(server), lacking)

    return look


def in_plugin(place: Place) -> Installed | None:
    """Look at the plugin of Claude Code. `ValueError` when it cannot be read."""
    folder = claude.folder(place)
    raw = read(folder / ".claude-plugin" / "plugin.json")
    if raw is None:
        return None
    server = _server(parse(raw.decode()).value)
    if server is None:
        raise ValueError(f"it has no server named {NAME}")
    hooks = parse((read(folder / "hooks" / "hooks.json") or b"{}").decode()).value
    lacking = [event for event in claude.hooks(place) if event not in _hooks(hooks)]
    return Installed(folder, _command(server), lacking)


def _hooks(values: Any) -> Mapping[str, Any]:
    """Return the hooks by event, none when the file has something else in their place."""
    found = values.get("hooks") if isinstance(values, dict) else None
    return found if isinstance(found, dict) else {}


def _server(values: Any) -> Mapping[str, Any] | None:
    for name in ("mcpServers", "mcp_servers"):
        servers = values.get(name) if isinstance(values, dict) else None
        found = servers.get(NAME) if isinstance(servers, dict) else None
        if isinstance(found, dict):
            return found
    return None


def _command(server: Mapping[str, Any]) -> Sequence[str]:
    """Return the command of a server. `ValueError` when it is not a string with a list of strings."""
    command, arguments = server.get("command"), server.get("args", [])
    words = [command, *arguments] if isinstance(arguments, list) else []
    if not words or not all(isinstance(word, str) for word in words):
        raise ValueError(f"the server {NAME} has no command that can be started")
    return words
