"""Start of a daemon in the background, for `up -d` and `restart`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import orjson

from claudemesh.cli import output
from claudemesh.client.errors import ApiError, ClientError
from claudemesh.client.local import LocalClient
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.exits import CONFIGURATION, TEMPORARY, ExitWith

_START_S = 30.0
_POLL_S = 0.02


def start_in_background(slug: str, with_broker: bool, name: str | None, as_json: bool) -> int:
    """Start a mesh's daemon unless it runs, wait until it answers, and return the exit code."""
    paths = daemon_paths(slug)
    if paths.membership.exists() and LocalClient(slug).is_running():
        answer = {"status": "already running", "mesh": slug}
        return output.print_answer(as_json, answer, f"the daemon of mesh {slug} runs already")
    # Imported here: only a start writes to the folder.
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
    started = {"status": "running", "mesh": slug, "pid": process.pid}
    return output.print_answer(as_json, started, f"started the daemon of mesh {slug} (pid {process.pid})")


def _program() -> list[str]:
    """Return the command line that starts this program again: the archive or the module."""
    # Imported here: only a start needs it.
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
                    TEMPORARY,
                    "not_up_yet",
                    f"The daemon does not answer within {_START_S:g} s. Its log is {log}.",
                    next="claudemesh daemon logs",
                ) from None
            time.sleep(_POLL_S)
        else:
            return


def _last_error(log: Path, started_at: int) -> tuple[str, str]:
    """Return error code and message of a daemon that ended while it started."""
    # Imported here: only a failed start reads the log.
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
    return "daemon_ended", f"The daemon ended while it started. Its log is {log}."
