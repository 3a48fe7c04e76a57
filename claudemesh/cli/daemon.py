"""`claudemesh daemon …`: the daemon's life, and its outbox for operators."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import orjson

from claudemesh.cli import output
from claudemesh.cli.options import json_option, mesh_option
from claudemesh.client.errors import ApiError, ClientError, DaemonNotRunning
from claudemesh.client.home import choose_mesh, home, meshes
from claudemesh.client.local import LocalClient
from claudemesh.runtime.exits import CONFIGURATION, TEMPORARY, ExitWith

_START_S = 30.0
_STOP_S = 20.0
_POLL_S = 0.02
DEFAULT_MESH = "home"


@click.group()
def daemon() -> None:
    """This host's daemon: one for each mesh."""


@daemon.command()
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


@daemon.command()
@mesh_option
@json_option
def down(mesh: str | None, as_json: bool) -> int:
    """Stop the daemon; what it has accepted stays on the disk."""
    client = LocalClient(mesh)
    try:
        pid = client.get("/v1/health")["pid"]
    except DaemonNotRunning:
        return _told(
            as_json, {"status": "not running", "mesh": client.slug}, f"no daemon runs for {client.slug}"
        )
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while _is_alive(pid):
        if time.monotonic() > deadline:
            raise ExitWith(
                TEMPORARY, "still_running", f"The daemon (pid {pid}) is still finishing; try again."
            )
        time.sleep(_POLL_S)
    return _told(as_json, {"status": "stopped", "mesh": client.slug}, f"stopped the daemon of {client.slug}")


@daemon.command()
@mesh_option
@json_option
def status(mesh: str | None, as_json: bool) -> int:
    """Show how the daemon is; exit 69 when none runs."""
    health = LocalClient(mesh).get("/v1/health")
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
            "degraded": ", ".join(health["degraded"]) or "no",
            "up": f"{health['uptime_s']} s, pid {health['pid']}",
            "version": health["daemon_version"],
            "key": health["member_pubkey"],
        }
    )
    if health["dead"]:
        output.note("Dead sends wait for you: claudemesh daemon outbox list --failed.")
    return 0


@daemon.group()
def outbox() -> None:
    """What this host sends: look at it, requeue or drop what is stuck."""


@outbox.command("list")
@click.option("--failed", is_flag=True, help="Only dead rows.")
@click.option("--status", type=click.Choice(["pending", "inflight", "done", "dead", "aborted"]))
@click.option("--limit", type=click.IntRange(1, 500), default=100, show_default=True)
@mesh_option
@json_option
def list_rows(failed: bool, status: str | None, limit: int, mesh: str | None, as_json: bool) -> None:
    """List rows, oldest first."""
    page = LocalClient(mesh).get("/v1/outbox", status="dead" if failed else status, limit=limit)
    if as_json:
        output.print_json(page)
        return
    output.table(
        ("id", "status", "to", "attempts", "client_message_id", "error"),
        [
            (
                row["id"],
                row["status"],
                f"{row.get('destination_kind', '')} {row.get('destination_ref', '')[:16]}".strip(),
                row["attempts"],
                row["client_message_id"],
                row["last_error"],
            )
            for row in page["items"]
        ],
    )
    if page["next"]:
        output.note("There are more: narrow it down with --status.")


@outbox.command()
@click.argument("row_id", metavar="ID")
@mesh_option
@json_option
def inspect(row_id: str, mesh: str | None, as_json: bool) -> None:
    """Show one row, by its id or client_message_id, and what superseded it."""
    row = LocalClient(mesh).get(f"/v1/outbox/{_segment(row_id)}")
    if as_json:
        output.print_json(row)
        return
    chain = row.pop("chain")
    output.fields({name: value for name, value in row.items() if value is not None})
    for successor in chain:
        output.say(f"superseded by {successor['id']} ({successor['status']})")


@outbox.command()
@click.option("--id", "row_id", required=True, metavar="ID")
@click.option("--new-client-id", metavar="auto|ID", default="auto", show_default=True)
@click.option("--patch-payload", type=click.File("rb"), metavar="FILE", help="JSON of what to change.")
@mesh_option
@json_option
def requeue(row_id: str, new_client_id: str, patch_payload: Any, mesh: str | None, as_json: bool) -> int:
    """Send a dead or pending row's message again, under a new id. The old row stays, aborted."""
    body: dict[str, Any] = {"new_client_message_id": new_client_id}
    if patch_payload is not None:
        try:
            body["patch"] = orjson.loads(patch_payload.read())
        except orjson.JSONDecodeError as error:
            raise click.UsageError(f"--patch-payload is not JSON: {error}.") from error
    answer = LocalClient(mesh).post(f"/v1/outbox/{_segment(row_id)}/requeue", body)
    return _told(as_json, answer, f"{answer['status']} {answer['client_message_id']}")


@outbox.command()
@click.argument("row_id", metavar="ID")
@mesh_option
@json_option
def drop(row_id: str, mesh: str | None, as_json: bool) -> int:
    """Retire a dead or pending row. Its id is never used again."""
    answer = LocalClient(mesh).post(f"/v1/outbox/{_segment(row_id)}/drop")
    return _told(as_json, answer, f"dropped {answer['id']}")


def _segment(row_id: str) -> str:
    from urllib.parse import quote

    return quote(row_id, safe="")


def _told(as_json: bool, answer: dict[str, Any], text: str) -> int:
    if as_json:
        output.print_json(answer)
    else:
        output.say(text)
    return 0


def _is_new(mesh: str | None) -> bool:
    return not meshes() if mesh is None else mesh not in meshes()


def _detach(slug: str, with_broker: bool, name: str | None, as_json: bool) -> int:
    folder = home() / "daemon" / slug
    if folder.exists() and (folder / "membership.json").exists() and LocalClient(slug).is_running():
        return _told(
            as_json, {"status": "already running", "mesh": slug}, f"a daemon for {slug} runs already"
        )
    # Imported here: only this path writes to the folder itself.
    from claudemesh.runtime.files import make_private_dir

    make_private_dir(folder)
    arguments = ["daemon", "up", "--mesh", slug]
    arguments += ["--with-broker"] if with_broker else []
    arguments += ["--name", name] if name else []
    log = folder / "daemon.log"
    started_at = log.stat().st_size if log.exists() else 0
    process = subprocess.Popen(
        [*_program(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "CLAUDEMESH_LOG_FILE": str(log)},
    )
    _wait_until_up(slug, process, log, started_at)
    return _told(
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
        return [sys.executable, str(own.resolve())]
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
    try:
        with log.open("rb") as file:
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


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    if platform.system() == "Linux":
        # A zombie has ended; only its parent has not noticed yet.
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (OSError, IndexError):
            return False
    return True
