"""`claudemesh daemon hooks`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from claudemesh.cli import answers, output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.cli.output import Column
from claudemesh.client.meshes import choose_mesh
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.exits import CONFIGURATION

_COLUMNS = ("hook", "state", "timeout", "may", "network", "sandbox", Column("file", "body"))


@click.command()
@mesh_option
@json_option
@answers.exits({78: "An enabled hook cannot run."})
@answers.beside_items(enabled="boolean?")
@answers.items(
    hook="string",
    state="string",
    file="string?",
    problem="string?",
    timeout_s="number",
    allow_reply="boolean",
    capability_token_scope="array",  # noqa: S106
    network_policy="string",
    sandbox="string",
)
def hooks(mesh: str | None, as_json: bool) -> int:
    """List the hooks and check their files. The exit code is 78 when an enabled hook cannot run.

    The list shows hooks.toml as it is on the disk, also before `claudemesh daemon reload` applies it.

    \b
    Examples:
      claudemesh daemon hooks
      claudemesh daemon logs | grep hook_run
    """
    # Imported here: no other command needs the hooks.
    from claudemesh.daemon.hooks.manifest import load_manifest
    from claudemesh.daemon.settings import load_settings

    paths = daemon_paths(choose_mesh(mesh))
    settings = load_settings(paths.config)
    manifest = load_manifest(paths.hooks_manifest, settings.hooks_default_timeout_s)
    found = [_look_at(paths.hooks, hook, manifest.hooks.keys()) for hook in manifest.hooks.values()]
    if as_json:
        output.print_items(found, enabled=settings.hooks_enabled)
    else:
        _show(found, paths.hooks_manifest, switched_off=settings.hooks_enabled is False)
    return CONFIGURATION if any(item["problem"] for item in found) else 0


def _look_at(folder: Path, hook: Any, names: Any) -> dict[str, Any]:
    from claudemesh.daemon.hooks.files import HookNotRunnable, find_hook

    path, problem = None, None
    if hook.enabled:
        try:
            path = str(find_hook(folder, hook.name, names - {hook.name}))
        except HookNotRunnable as error:
            problem = f"{error}."
    state = "off" if not hook.enabled else "ready" if problem is None else "cannot run"
    return {
        "hook": hook.name,
        "state": state,
        "file": path,
        "problem": problem,
        "timeout_s": hook.timeout_s,
        "allow_reply": hook.allow_reply,
        "capability_token_scope": list(hook.capability_token_scope),
        "network_policy": hook.network_policy,
        "sandbox": hook.sandbox,
    }


def _show(found: list[dict[str, Any]], manifest: Path, *, switched_off: bool) -> None:
    if not found:
        output.note(f"{manifest} lists no hooks.")
        return
    output.table(_COLUMNS, map(_row, found))
    for item in found:
        if item["problem"]:
            output.error(f"{item['hook']}: {item['problem']}")
    if switched_off:
        output.note("No hook runs, because config.toml has [hooks] enabled = false.")


def _row(item: dict[str, Any]) -> list[object]:
    may = [*(["reply"] if item["allow_reply"] else []), *item["capability_token_scope"]]
    return [
        item["hook"],
        item["state"],
        f"{item['timeout_s']:g} s",
        ", ".join(may) or "-",
        item["network_policy"],
        item["sandbox"],
        item["file"] or "-",
    ]
