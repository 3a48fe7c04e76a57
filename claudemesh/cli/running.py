"""`claudemesh daemon up`, `down`, `restart`, `reload`, `rotate-token` and `status`: the daemon's life."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import click
import orjson

from claudemesh.cli import output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.cli.stopping import reload_settings, shown_pid, stop
from claudemesh.client.errors import ApiError, ClientError, DaemonNotRunning
from claudemesh.client.local import LocalClient
from claudemesh.client.meshes import choose_mesh, meshes
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.exits import CONFIGURATION, TEMPORARY, ExitWith

_START_S = 30.0
_POLL_S = 0.02
DEFAULT_MESH = "home"


@click.command()
@click.option("-d", "--detach", is_flag=True, help="Run in the background; return once it answers.")
@click.option("--with-broker", is_flag=True, help="Run a broker inside the daemon, for one machine.")
@click.option("--name", metavar="NAME", help="This host's name, when --with-broker makes the mesh.")
@mesh_option
@json_option
def up(detach: bool, with_broker: bool, name: str | None, mesh: str | None, as_json: bool) -> int:
    """Start the daemon, in the foreground as services want it, or with -d in the background.

    \b
    claudemesh daemon up -d
    claudemesh daemon up -d --with-broker      also makes a mesh `home` if there is none
    """
    slug = (mesh or DEFAULT_MESH) if with_broker and _is_new(mesh) else choose_mesh(mesh)
    if detach:
        return _detach(slug, with_broker, name, as_json)
    # Imported here: only a process that becomes a daemon needs it.
    from claudemesh.cli.process import run_daemon

    return run_daemon(slug, with_broker=with_broker, name=name)


@click.command()
@mesh_option
@json_option
def down(mesh: str | None, as_json: bool) -> int:
    """Stop the daemon; what it has accepted stays on the disk."""
    client = LocalClient(mesh)
    try:
        stop(client)
    except DaemonNotRunning:
        return output.tell(
            as_json, {"status": "not running", "mesh": client.slug}, f"no daemon runs for {client.slug}"
        )
    answer = {"status": "stopped", "mesh": client.slug}
    return output.tell(as_json, answer, f"stopped the daemon of {client.slug}")


@click.command()
@mesh_option
@json_option
def restart(mesh: str | None, as_json: bool) -> int:
    """Stop the daemon and start it again, in the background; nothing that was accepted is lost.

    It starts with the options of its last start, also when it has crashed since.
    """
    client = LocalClient(mesh)
    with suppress(DaemonNotRunning):
        stop(client, to_restart=True)
    return _detach(client.slug, _was_with_broker(client.slug), None, as_json)


def _was_with_broker(slug: str) -> bool:
    """Tell whether the last start was one with --with-broker."""
    # Imported here: only this command reads the daemon's files.
    from claudemesh.runtime.files import UnsafeFile, read_own

    try:
        options = orjson.loads(read_own(daemon_paths(slug).start_options))
    except (OSError, UnsafeFile, orjson.JSONDecodeError):
        return False
    return isinstance(options, dict) and options.get("with_broker") is True


@click.command()
@mesh_option
@json_option
def reload(mesh: str | None, as_json: bool) -> int:
    """Take config.toml over as it is now. A wrong value is named, and changes nothing."""
    client = LocalClient(mesh)
    config = reload_settings(client)
    if config["error"]:
        raise ExitWith(CONFIGURATION, "reload_refused", config["error"])
    waiting = ", ".join(config["needs_restart"])
    if waiting and not as_json:
        output.note(f"These hold from the next start on: {waiting} (claudemesh daemon restart).")
    return output.tell(as_json, {"status": "reloaded", **config}, f"reloaded the settings of {client.slug}")


@click.command("rotate-token")
@mesh_option
@json_option
def rotate_token(mesh: str | None, as_json: bool) -> int:
    """Replace the bearer of the loopback; the one before works for 60 s more."""
    # Imported here: only this command writes the daemon's files.
    from claudemesh.daemon.listeners import write_token

    client = LocalClient(mesh)
    paths = daemon_paths(client.slug)
    write_token(paths)
    if client.is_running():
        reload_settings(client)
    answer = {"status": "rotated", "file": str(paths.local_token)}
    return output.tell(as_json, answer, f"a new token is in {paths.local_token}")


@click.command()
@mesh_option
@json_option
def status(mesh: str | None, as_json: bool) -> int:
    """Show how the daemon is; exit 69 when none runs."""
    client = LocalClient(mesh)
    health = client.get("/v1/health")
    if as_json:
        output.print_json(health)
        return 0
    link = f"connected to {health['broker_url']}"
    if not health["connected"]:
        link = f"not connected ({health['last_error'] or 'connecting'})"
    waiting = f"{health['queue_depth']} queued, {health['inflight']} in flight, {health['dead']} dead"
    output.fields(
        {
            "mesh": health["mesh"],
            "name": health["name"],
            "link": link,
            "waiting": waiting,
            "degraded": ", ".join(item["code"] for item in health["degraded"]) or "no",
            "up": f"{health['uptime_s']} s, {shown_pid(client, health)}",
            "version": health["daemon_version"],
            "key": health["member_pubkey"],
        }
    )
    for item in health["degraded"]:
        output.note(f"{item['code']}, since {item['since']}: {item['message']}")
    if health["dead"]:
        output.note("Dead sends wait for you: claudemesh daemon outbox list --failed.")
    return 0


def _is_new(mesh: str | None) -> bool:
    return not meshes() if mesh is None else mesh not in meshes()


def _detach(slug: str, with_broker: bool, name: str | None, as_json: bool) -> int:
    paths = daemon_paths(slug)
    if paths.membership.exists() and LocalClient(slug).is_running():
        return output.tell(
            as_json, {"status": "already running", "mesh": slug}, f"a daemon for {slug} runs already"
        )
    # Imported here: only this path writes to the folder itself.
    from claudemesh.runtime.files import make_private_dir, open_own

    make_private_dir(paths.root)
    arguments = ["daemon", "up", "--mesh", slug]
    arguments += ["--with-broker"] if with_broker else []
    arguments += ["--name", name] if name else []
    log = paths.log
    try:
        with open_own(log) as file:
            started_at = file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        started_at = 0
    process = subprocess.Popen(
        [*_program(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "CLAUDEMESH_LOG_FILE": str(log)},
    )
    _wait_until_up(slug, process, log, started_at)
    return output.tell(
        as_json,
        {"status": "running", "mesh": slug, "pid": process.pid},
        f"the daemon of {slug} is up (pid {process.pid})",
    )


def _program() -> list[str]:
    """How this very program is started again: the archive, whatever its name, or the module."""
    # Imported here: only this path needs it.
    import zipfile

    own = Path(sys.argv[0])
    if zipfile.is_zipfile(own):
        return [sys.executable, "-IS", str(own.resolve())]
    return [sys.executable, "-m", "claudemesh"]


def _wait_until_up(slug: str, process: subprocess.Popen[bytes], log: Path, started_at: int) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        code = process.poll()
        if code is not None:
            error, message = _last_error(log, started_at)
            raise ExitWith(code or CONFIGURATION, error, message)
        try:
            LocalClient(slug).get("/v1/version")
        except (ClientError, ApiError):
            if time.monotonic() > deadline:
                raise ExitWith(
                    TEMPORARY, "not_up_yet", f"The daemon does not answer yet; its log is {log}."
                ) from None
            time.sleep(_POLL_S)
        else:
            return


def _last_error(log: Path, started_at: int) -> tuple[str, str]:
    """What a daemon that ended at once had to say."""
    # Imported here: only a start in the background reads the log.
    from claudemesh.runtime.files import open_own

    try:
        with open_own(log) as file:
            file.seek(started_at)
            lines = file.read().splitlines()
    except FileNotFoundError:
        lines = []
    for raw in reversed(lines):
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError:
            continue
        if line.get("event") == "daemon_ended":
            return line["error"], line["detail"]
    return "daemon_ended", f"The daemon ended while it started; its log is {log}."
