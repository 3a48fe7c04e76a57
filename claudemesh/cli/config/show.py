"""`claudemesh config show`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.cli.settings_output import check, print_checks, print_rows, public, rows
from claudemesh.client.errors import ApiError, DaemonNotRunning
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import choose_mesh
from claudemesh.daemon.settings import INVALID, TABLE, merge_settings
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.settings.document import read_own_document
from claudemesh.runtime.settings.merge import toml

_NOT_FOUND = 404
_COMMANDS = {"reload": "claudemesh daemon reload", "restart": "claudemesh daemon restart"}


@click.command()
@click.option("--origin", is_flag=True, help="Show where each value comes from.")
@mesh_option
@json_option
@answers.exits({78: "There is a fault."})
@answers.beside_items(file="string", exists="boolean", running="boolean", daemon="object?")
@answers.items(**answers.SETTING, in_force="any?", pending="string?")
def show(origin: bool, mesh: str | None, as_json: bool) -> int:
    """Show the settings of the daemon.

    The settings are those of config.toml and the defaults. When the running daemon uses another value, that
    value is shown too, with the command that applies the new one.

    \b
    Examples:
      claudemesh config show --origin
      claudemesh config show --json | jq '.items[] | select(.pending)'
    """
    slug = choose_mesh(mesh)
    path = daemon_paths(slug).config
    merged = merge_settings(read_own_document(path, INVALID))
    if merged.faults:
        return print_checks([check(str(path), lambda: merged.faults)], as_json=as_json)
    live = _live(slug)
    items = [
        item | _in_force(live, key.section, key.name, item["value"], is_live=key.reload)
        for key, item in zip(TABLE.keys, rows(TABLE, merged), strict=True)
    ]
    if as_json:
        _print_as_json(path, live, items)
        return 0
    print_rows(items, with_origin=origin)
    _print_notes(live, items)
    return 0


def _live(slug: str) -> Mapping[str, Any] | None:
    """Return the configuration of the running daemon: None without a daemon, {} when it is too old to show
    it."""
    try:
        return LocalClient(slug).get("/v1/config")
    except DaemonNotRunning:
        return None
    except ApiError as error:
        if error.status != _NOT_FOUND:
            raise
        return {}


def _in_force(
    live: Mapping[str, Any] | None, section: str, name: str, value: object, *, is_live: bool
) -> dict[str, Any]:
    """Return the value that the daemon uses and, if it differs, the command that applies the value of the
    file."""
    known = (live or {}).get("settings", {}).get(section, {})
    if name not in known:
        return {"in_force": None, "pending": None}
    pending = None if known[name] == value else "reload" if is_live else "restart"
    return {"in_force": known[name], "pending": pending}


def _print_as_json(path: Path, live: Mapping[str, Any] | None, items: Sequence[dict[str, Any]]) -> None:
    daemon = {name: live.get(name) for name in ("loaded_at", "error", "reloads")} if live else None
    output.print_items(
        [public(item) for item in items],
        file=str(path),
        exists=path.exists(),
        running=live is not None,
        daemon=daemon,
    )


def _print_notes(live: Mapping[str, Any] | None, items: Sequence[dict[str, Any]]) -> None:
    if live is None:
        output.note("No daemon runs.")
        return
    if not live:
        output.note("The running daemon has an older version, which does not show its settings.")
        return
    pending = [item for item in items if item["pending"]]
    for item in pending:
        value = "the default" if item["in_force"] is None else toml(item["in_force"])
        output.note(f"The running daemon uses {item['key']} = {value}: {_COMMANDS[item['pending']]}")
    if live["error"]:
        output.note(f"The last reload was refused: {live['error']}")
    if not pending:
        output.note("The running daemon uses these settings.")
