"""`claudemesh daemon ps`, `logs`, `metrics` and `claudemesh paths`: looking at daemons."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import orjson

from claudemesh.cli import output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.cli.stopping import valid_pid
from claudemesh.client.errors import ClientError
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import choose_mesh, meshes
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.files import open_own

_POLL_S = 0.2
_COLUMNS = ("mesh", "state", "name", "pid", "link", "waiting", "dead")
_TAIL_BYTES = 1 << 20


@click.command()
@json_option
def ps(as_json: bool) -> None:
    """List this host's daemons, running or not."""
    found = [_look_at(slug) for slug in meshes()]
    if as_json:
        output.print_json({"items": found})
        return
    output.table(_COLUMNS, [[daemon[name] for name in _COLUMNS] for daemon in found])


def _look_at(slug: str) -> dict[str, Any]:
    try:
        client = LocalClient(slug)
        health = client.get("/v1/health")
    except ClientError:
        return dict.fromkeys(("name", "pid", "link", "waiting", "dead")) | {"mesh": slug, "state": "down"}
    return {
        "mesh": slug,
        "state": "up",
        "name": health["name"],
        "pid": valid_pid(client, health),
        "link": "up" if health["connected"] else "down",
        "waiting": health["queue_depth"] + health["inflight"],
        "dead": health["dead"],
    }


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as the daemon writes.")
@click.option("-n", "--lines", type=click.IntRange(0, 100_000), default=50, show_default=True)
@mesh_option
@json_option
def logs(follow: bool, lines: int, mesh: str | None, as_json: bool) -> None:
    """Show the log of a daemon that was started with -d; one in the foreground writes to its terminal.

    \b
    claudemesh logs -f
    claudemesh logs -n 1000 --json | jq 'select(.level == "error")'
    """
    path = daemon_paths(choose_mesh(mesh)).log
    try:
        file = open_own(path)
    except FileNotFoundError:
        text = f"There is no {path}: the daemon was never started with `daemon up -d`."
        raise ExitWith(CONFIGURATION, "no_log", text) from None
    with file:
        start = max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES)
        file.seek(start)
        known = file.read()
    # The first line may have been cut by where we began.
    whole = known.splitlines()[1 if start else 0 :]
    for line in whole[len(whole) - lines :] if lines else ():
        _show(line, as_json)
    if follow:
        for line in _follow(path, start + len(known)):
            _show(line, as_json)


def _follow(path: Path, at: int) -> Iterator[bytes]:
    """Yield lines as they are written, also after a rotation, until the reader of stdout has gone."""
    file = open_own(path)
    file.seek(at)
    rest = b""
    while True:
        piece = file.read()
        if piece:
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
            continue
        with suppress(FileNotFoundError):
            now = path.stat()
            if now.st_ino != _inode(file) or now.st_size < file.tell():
                file.close()
                file = open_own(path)
                continue
        if output.stdout_hung_up():
            return
        time.sleep(_POLL_S)


def _inode(file: Any) -> int:
    return os.fstat(file.fileno()).st_ino


def _show(line: bytes, as_json: bool) -> None:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        output.say(line.decode(errors="replace"))
        return
    if as_json:
        output.print_json(fields)
        return
    head = [str(fields.pop(name, "")) for name in ("ts", "level", "event")]
    fields.pop("logger", None)
    trace = fields.pop("traceback", None)
    rest = "  ".join(f"{name}={value}" for name, value in fields.items())
    output.say(output.safe(f"{head[0]}  {head[1]:<7}  {head[2]}  {rest}".rstrip()))
    if trace:
        output.say("\n".join(f"    {part}" for part in str(trace).splitlines()))


@click.command()
@mesh_option
@json_option
def metrics(mesh: str | None, as_json: bool) -> None:
    """Print the daemon's metrics in Prometheus' text format."""
    text = LocalClient(mesh).text("/v1/metrics")
    if not as_json:
        output.say(text)
        return
    samples = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    output.print_json({name: float(value) for name, _, value in samples})


@click.command()
@mesh_option
@json_option
def paths(mesh: str | None, as_json: bool) -> None:
    """Show where everything is."""
    slug = choose_mesh(mesh)
    known = daemon_paths(slug)
    databases = (known.outbox_db, known.inbox_db)
    files = (known.sock, known.http_port, known.local_token, known.config, *databases, known.log)
    found = {"home": known.home, "daemon": known.root} | {path.name: path for path in files}
    if as_json:
        output.print_json({name: str(path) for name, path in found.items()})
        return
    output.fields({name: f"{path}{'' if path.exists() else '  (not there)'}" for name, path in found.items()})
