"""`claudemesh bugreport`."""

from __future__ import annotations

import platform
import sqlite3
import sys
from dataclasses import asdict
from typing import Any

import click

import claudemesh
from claudemesh.cli import answers, output
from claudemesh.cli.diagnosis.examine import examine
from claudemesh.cli.options import json_lines_option, mesh_option
from claudemesh.client.errors import ClientError
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import choose_mesh
from claudemesh.daemon.settings import load_settings
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.files import UnsafeFile, open_own

_LOG_LINES = 50


@click.command()
@mesh_option
@json_lines_option
@answers.one(
    claudemesh="string",
    python="string",
    platform="string",
    sqlite="string",
    health="object",
    settings="object",
    findings="array",
    log="array",
)
def bugreport(mesh: str | None) -> None:
    """Print a report for a bug, without secrets or messages.

    The report is JSON: versions, health, settings, findings of `claudemesh doctor`, and the end of the log.

    \b
    Examples:
      claudemesh bugreport >report.json
    """
    slug = choose_mesh(mesh)
    paths = daemon_paths(slug)
    try:
        health: Any = LocalClient(slug).get("/v1/health")
    except ClientError as error:
        health = error.as_body()
    try:
        settings: Any = asdict(load_settings(paths.config))
    except ExitWith as error:
        settings = error.message
    try:
        with open_own(paths.log) as file:
            lines = file.read().splitlines()[-_LOG_LINES:]
    except (OSError, UnsafeFile) as error:
        lines = [str(error).encode()]
    output.print_json(
        {
            "claudemesh": claudemesh.__version__,
            "python": sys.version,
            "platform": platform.platform(),
            "sqlite": sqlite3.sqlite_version,
            "health": health,
            "settings": settings,
            "findings": [asdict(finding) for finding in examine(slug).findings],
            "log": [line.decode(errors="replace") for line in lines],
        }
    )
