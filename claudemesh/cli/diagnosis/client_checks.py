"""Checks of the clients of agents that have the integration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from claudemesh.cli.diagnosis.facts import ClientFacts
from claudemesh.cli.diagnosis.findings import Finding, failed, ok, warning
from claudemesh.cli.integrate.claude import TOOL

_BYPASS = "bypassPermissions"


def check_clients(clients: Iterable[ClientFacts]) -> Iterator[Finding]:
    """Check each integration: server, hooks, version, and a push to its sessions."""
    for client in clients:
        found = list(_faults(client))
        yield from found or [ok(client.title, _works(client))]


def _faults(client: ClientFacts) -> Iterator[Finding]:
    title, again = client.title, f"claudemesh integrate {client.name}"
    if client.error is not None:
        yield warning(title, "settings_unreadable", client.error, "Correct the file.")
        return
    if client.missing:
        detail = f"{client.path} starts {', '.join(client.missing)}, which does not exist"
        yield failed(title, "client_command_missing", detail, "Integrate the client again.", again)
    if client.missing_hooks:
        detail = f"{client.path} has no hook for {', '.join(client.missing_hooks)}"
        remedy = "Without it the model is not told of messages. Integrate the client again."
        yield warning(title, "client_hooks_missing", detail, remedy, again)
    if client.hooks_off is not None:
        detail = f"the client runs no hooks: {client.hooks_off} is set"
        remedy = "Nothing proves that a message was shown, and it is pushed again. Remove the setting."
        yield warning(title, "client_hooks_off", detail, remedy)
    for where, command in client.others:
        detail = f"{where} starts the server a second time"
        yield warning(title, "registered_already", detail, "Its hooks do not work. Remove that one.", command)
    if client.version is not None and client.floor is not None and client.version < client.floor:
        yield _outdated(client, client.version, client.floor)


def _outdated(client: ClientFacts, version: tuple[int, ...], floor: tuple[int, ...]) -> Finding:
    remedy = f"Update it to {_shown(floor)} or newer."
    if client.name == "claude":
        remedy += " Under Node 20 npm installs 2.1.197 without a word: newer ones need Node 22."
    detail = f"version {_shown(version)} is older than {_shown(floor)}: its idle sessions may not be woken"
    return warning(client.title, "client_outdated", detail, remedy)


def _works(client: ClientFacts) -> str:
    version = "" if client.version is None else f"version {_shown(client.version)}, "
    number = len(client.sessions)
    shown = "no session runs" if number == 0 else f"{number} session{'' if number == 1 else 's'}"
    reach = f", reach {', '.join(sorted(set(client.sessions)))}" if number else ""
    return f"{client.path}; {version}{shown}{reach}{_push(client)}"


def _push(client: ClientFacts) -> str:
    """Return the way of a message into an idle session, as the end of a sentence."""
    if client.name == "claude":
        mode = f" (here: {client.mode})" if client.mode is not None else ""
        text = f". A push wakes an idle session in every permission mode{mode}"
        if client.asking and client.mode != _BYPASS:
            rules = " and ".join(f'"{TOOL}{tool}"' for tool in client.asking)
            text += f"; the tools ask before they send, unless permissions.allow has {rules}"
        return text
    return {
        "codex": ". A queued notice wakes an idle session, after its first prompt; /hooks has the trust",
        "qwen": ". A notice wakes an idle session",
        "gemini": ". Nothing wakes an idle session: its next prompt tells of messages",
    }.get(client.name, ". Messages are seen when the model reads them")


def _shown(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
