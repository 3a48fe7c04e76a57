"""Integrations that are installed: the command that a client starts, and hooks that are not there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from claudemesh.cli.integrate import claude
from claudemesh.cli.integrate.files import Format, read
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
    server = _server(json.loads(raw))
    hooks = json.loads(read(folder / "hooks" / "hooks.json") or b"{}")
    lacking = [event for event in claude.hooks(place) if event not in _hooks(hooks)]
    return Installed(folder, () if server is None else _command(server), lacking)


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


def _command(server: Mapping[str, Any]) -> tuple[str, ...]:
    words = (server.get("command"), *(server.get("args") or ()))
    return tuple(word for word in words if isinstance(word, str))
