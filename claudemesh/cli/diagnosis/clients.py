"""Collection of facts about the clients of agents that have the integration."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from claudemesh.cli.diagnosis.facts import ClientFacts
from claudemesh.cli.integrate import claude
from claudemesh.cli.integrate.clients import CLIENTS, Client
from claudemesh.cli.integrate.places import Place, find_place
from claudemesh.cli.integrate.versions import version_of
from claudemesh.client.errors import ClientError
from claudemesh.client.local import LocalClient
from claudemesh.runtime.exits import ExitWith


@dataclass(frozen=True, slots=True)
class _Kind:
    """The beginning of the name that sessions of a client have, and the program with its first good version.

    Programs without such a version are not run: some write files when they say their version.
    """

    session: str
    program: str | None = None
    floor: tuple[int, ...] | None = None


_KINDS: Final = {
    "claude": _Kind("claude", "claude", claude.FLOOR),
    "codex": _Kind("codex", "codex", (0, 171, 0)),
    "gemini": _Kind("gemini"),
    "qwen": _Kind("qwen"),
    "cursor": _Kind("cursor"),
}


def client_facts(sessions: Sequence[Mapping[str, Any]]) -> tuple[ClientFacts, ...]:
    """Return the facts about each integration of this user and of the current directory.

    A user without a home directory has none.
    """
    try:
        places = (find_place("project"), find_place("user"))
    except ExitWith:
        return ()
    return tuple(
        found for name, client in CLIENTS.items() for found in _found(name, client, places, sessions)
    )


def live_sessions(daemon: LocalClient) -> Sequence[Mapping[str, Any]]:
    """Return the live sessions of this host, none when the daemon does not answer."""
    try:
        return list(daemon.items("/v1/sessions"))
    except ClientError:
        # The daemon has findings of its own.
        return []


def _found(
    name: str, client: Client, places: Sequence[Place], sessions: Sequence[Mapping[str, Any]]
) -> Iterator[ClientFacts]:
    kind = _KINDS[name]
    for path, place in {_path(client, place): place for place in places}.items():
        try:
            installed = client.look(place)
            others = client.others(place) if installed is not None else ()
        except (ExitWith, ValueError) as error:
            text = error.message if isinstance(error, ExitWith) else f"{path}: {error}"
            yield ClientFacts(name, client.title, path, error=text)
            continue
        if installed is None:
            continue
        settings = _settings(place) if name == "claude" else {}
        yield ClientFacts(
            name,
            client.title,
            installed.path,
            missing=tuple(_missing(installed.command)),
            missing_hooks=tuple(installed.missing_hooks),
            others=tuple(others),
            version=None if kind.program is None else version_of(kind.program),
            floor=kind.floor,
            hooks_off="disableAllHooks" if settings.get("disableAllHooks") is True else None,
            mode=_mode(settings) if name == "claude" else None,
            asking=tuple(_asking(settings)) if name == "claude" else (),
            sessions=tuple(one["reach"] for one in sessions if one["client"].startswith(kind.session)),
        )


def _path(client: Client, place: Place) -> Path:
    try:
        return client.install(place)[0].path
    except ExitWith:
        return place.project if place.scope == "project" else place.home


def _missing(words: Sequence[str]) -> Iterator[str]:
    """Return the programs and archives of a command that are not there."""
    if words and shutil.which(words[0]) is None:
        yield words[0]
    yield from (word for word in words[1:] if word.endswith(".pyz") and not Path(word).exists())


def _settings(place: Place) -> Mapping[str, Any]:
    """Return the settings of Claude Code, those of the project above those of the user."""
    merged: dict[str, Any] = {}
    user = claude.folder(place).parent.parent
    project = place.project / ".claude"
    for path in (user / "settings.json", project / "settings.json", project / "settings.local.json"):
        try:
            found = orjson.loads(path.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            continue
        if isinstance(found, dict):
            allowed = [*_rules(merged), *_rules(found)]
            merged |= found
            merged["permissions"] = {**_permissions(merged), "allow": allowed}
    return merged


def _permissions(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    found = settings.get("permissions")
    return found if isinstance(found, dict) else {}


def _rules(settings: Mapping[str, Any]) -> list[Any]:
    found = _permissions(settings).get("allow")
    return found if isinstance(found, list) else []


def _mode(settings: Mapping[str, Any]) -> str | None:
    found = _permissions(settings).get("defaultMode")
    return found if isinstance(found, str) else None


def _asking(settings: Mapping[str, Any]) -> Iterator[str]:
    """Return the writing tools that no rule allows."""
    rules = _rules(settings)
    whole = claude.TOOL.removesuffix("__")
    if whole in rules or f"{whole}__*" in rules:
        return
    yield from (tool for tool in ("mesh_send", "mesh_ack") if f"{claude.TOOL}{tool}" not in rules)
