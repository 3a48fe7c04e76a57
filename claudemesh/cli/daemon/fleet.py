"""The daemons of all meshes of this host: `up`, `down`, `restart` and `status` with --all.

A daemon that fails is a row of the table, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from claudemesh.cli import output
from claudemesh.cli.daemon.background import start_daemon
from claudemesh.cli.daemon.control import stop
from claudemesh.cli.daemon.restarting import start_options, stop_to_restart
from claudemesh.cli.errors import explain
from claudemesh.client.errors import DaemonNotRunning
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import meshes
from claudemesh.home.fleet import TABLE, share_in
from claudemesh.home.paths import home
from claudemesh.runtime.exits import OK, TEMPORARY, UNAVAILABLE

_COLUMNS = ("mesh", "state", "detail")


def up_all(as_json: bool) -> int:
    """Start the daemon of each mesh that does not run, as many as fleet.toml allows; return the exit code."""
    known = meshes()
    allowed = share_in(home()).daemons
    running = sum(_runs(slug) for slug in known)

    def start(slug: str) -> Mapping[str, Any]:
        nonlocal running
        if LocalClient(slug).is_running():
            return {"state": "already running"}
        if running >= allowed:
            text = f"{TABLE.file} allows {allowed} daemons at the same time. Raise its limits, or stop one."
            return {"state": "not started", "error": "fleet_full", "detail": text, "code": TEMPORARY}
        start_daemon(slug, start_options(slug))
        # One that fails leaves its place to another.
        running += 1
        return {"state": "started"}

    return _show(known, start, as_json)


def down_all(as_json: bool) -> int:
    """Stop the daemon of each mesh; return the exit code."""

    def end(slug: str) -> Mapping[str, Any]:
        try:
            stop(LocalClient(slug))
        except DaemonNotRunning:
            return {"state": "not running"}
        return {"state": "stopped"}

    return _show(meshes(), end, as_json)


def restart_all(as_json: bool) -> int:
    """Stop and start the daemon of each mesh that runs; return the exit code."""

    def again(slug: str) -> Mapping[str, Any]:
        client = LocalClient(slug)
        if not client.is_running():
            return {"state": "not running"}
        if not stop_to_restart(client):
            start_daemon(slug, start_options(slug))
        return {"state": "restarted"}

    return _show(meshes(), again, as_json)


def status_all(as_json: bool) -> int:
    """Show the state of the daemon of each mesh; return 69 unless all run."""

    def look(slug: str) -> Mapping[str, Any]:
        try:
            health = LocalClient(slug).get("/v1/health")
        except DaemonNotRunning as error:
            detail = None if error.may_start else error.message
            return {"state": "down", "detail": detail, "code": UNAVAILABLE}
        codes = [item["code"] for item in health["degraded"]]
        link = (
            "connected" if health["connected"] else f"not connected ({health['last_error'] or 'connecting'})"
        )
        detail = ", ".join([link, *codes, *([f"{health['dead']} dead"] if health["dead"] else [])])
        return {"state": "up", "detail": detail, "connected": health["connected"], "degraded": codes}

    return _show(meshes(), look, as_json)


def _show(known: Iterable[str], act: Callable[[str], Mapping[str, Any]], as_json: bool) -> int:
    """Do one thing for each mesh, print a row for each, and return the exit code: that of all failures, or 75
    when they differ."""
    rows, codes = [], set()
    for slug in known:
        try:
            row = dict(act(slug))
        except Exception as error:
            failure = explain(error)
            row = {
                "state": "failed",
                "error": failure.code,
                "detail": failure.message,
                "code": failure.exit_code,
            }
        codes.add(row.pop("code", OK))
        rows.append({"mesh": slug, "detail": None, **row})
    if as_json:
        output.print_items(rows)
    else:
        output.table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])
    failed = codes - {OK}
    return OK if not failed else failed.pop() if len(failed) == 1 else TEMPORARY


def _runs(slug: str) -> bool:
    with suppress(Exception):
        return LocalClient(slug).is_running()
    return False
