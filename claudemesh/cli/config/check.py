"""`claudemesh config check`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from claudemesh.broker import settings as broker
from claudemesh.cli import answers
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.cli.settings_output import Checked, print_checks
from claudemesh.cli.settings_output import check as run_check
from claudemesh.client.meshes import choose_mesh, meshes
from claudemesh.daemon import settings as daemon
from claudemesh.daemon.hooks import manifest as hooks
from claudemesh.home import fleet
from claudemesh.home.paths import broker_data_dir, daemon_paths, home
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.settings.document import Document, read_document, read_own_document
from claudemesh.runtime.settings.merge import Fault


@click.command()
@click.option(
    "--file", "path", type=click.Path(path_type=Path), metavar="FILE", help="Check this file, and no other."
)
@click.option(
    "--kind",
    type=click.Choice(["config", "hooks", "broker", "fleet"]),
    help="Kind of FILE, when it is not called config.toml, hooks.toml, broker.toml or fleet.toml.",
)
@mesh_option
@json_option
@answers.exits({78: "There is a fault."})
@answers.items(file="string", exists="boolean", faults="array")
def check(path: Path | None, kind: str | None, mesh: str | None, as_json: bool) -> int:
    """Check the configuration files, and list every fault. The exit code is 78 when there is a fault.

    Without --file, the config.toml and hooks.toml of each mesh of this host, fleet.toml, and the broker.toml
    of this user's broker are checked. Environment variables of a broker are checked by `claudemesh broker
    config check`.

    \b
    Examples:
      claudemesh config check
      claudemesh config check --file deploy/broker.toml
    """
    if path is None:
        if kind is not None:
            raise click.UsageError("--kind needs --file.")
        return print_checks(_files_of_host(mesh), as_json=as_json)
    if mesh is not None:
        raise click.UsageError("--mesh and --file exclude each other.")
    return print_checks([run_check(str(path), lambda: _named(path, kind))], as_json=as_json)


def _files_of_host(mesh: str | None) -> list[Checked]:
    checks = []
    for slug in meshes() if mesh is None else [choose_mesh(mesh)]:
        paths = daemon_paths(slug)
        checks.append(_own(paths.config, daemon.INVALID, _config))
        checks.append(_own(paths.hooks_manifest, hooks.INVALID, _hooks))
    if mesh is None:
        checks.append(_own(home() / fleet.TABLE.file, fleet.INVALID, _fleet))
        path = broker_data_dir() / broker.TABLE.file
        checks.append(run_check(str(path), lambda: _read(read_document(path, broker.INVALID), _broker)))
    return checks


def _own(path: Path, code: str, faults: Callable[[Document], Sequence[Fault]]) -> Checked:
    return run_check(str(path), lambda: _read(read_own_document(path, code), faults))


def _read(document: Document | None, faults: Callable[[Document], Sequence[Fault]]) -> Sequence[Fault] | None:
    return None if document is None else faults(document)


def _named(path: Path, kind: str | None) -> Sequence[Fault]:
    """Return the faults of a named file, which may be anywhere and belong to another user."""
    kinds = {"config": _config, "hooks": _hooks, "broker": _broker, "fleet": _fleet}
    kind = kind or path.name.removesuffix(".toml")
    if kind not in kinds:
        raise click.UsageError(f"{path} is not called config.toml, hooks.toml or broker.toml: use --kind.")
    code = {"config": daemon.INVALID, "hooks": hooks.INVALID, "broker": broker.INVALID}[kind]
    document = read_document(path, code)
    if document is None:
        raise ExitWith(CONFIGURATION, code, f"{path} does not exist.")
    return kinds[kind](document)


def _fleet(document: Document) -> Sequence[Fault]:
    return fleet.merge_fleet(document).faults


def _config(document: Document) -> Sequence[Fault]:
    return daemon.merge_settings(document).faults


def _hooks(document: Document) -> Sequence[Fault]:
    return hooks.read_manifest(document, daemon.DaemonSettings().hooks_default_timeout_s)[1]


def _broker(document: Document) -> Sequence[Fault]:
    return broker.merge_settings((), document, os.environ).faults
