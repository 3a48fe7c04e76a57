"""A PgBouncer of the test's own in front of a test server: on a unix socket, in a temporary folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.support.postgres import SUPERUSER, Server, account, shared_server
from tests.support.processes import until

_PORT = 6432
# Parameters that the driver sends when it connects, and that PgBouncer does not know.
IGNORED = "ignore_startup_parameters = extra_float_digits,jit,search_path,plan_cache_mode"


@contextmanager
def pgbouncer(mode: str, *lines: str, server: Server | None = None) -> Generator[str]:
    """Run one in this pool mode, with more lines of its configuration; yields the start of a URL's query."""
    there = server or shared_server()
    folder = Path(tempfile.mkdtemp(prefix="cm-pb-"))
    who = account()
    settings = [
        "[databases]",
        f"* = host={there.folder} user={SUPERUSER}",
        "[pgbouncer]",
        "listen_addr =",
        f"listen_port = {_PORT}",
        f"unix_socket_dir = {folder}",
        "auth_type = any",
        f"pool_mode = {mode}",
        "max_client_conn = 200",
        f"logfile = {folder}/log",
        *lines,
    ]
    (folder / "ini").write_text("\n".join(settings) + "\n")
    identity = {}
    if who is not None:
        os.chown(folder, who.pw_uid, who.pw_gid)
        identity = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [program, "-q", str(folder / "ini")],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            **identity,  # type: ignore[call-overload]
        )
    try:
        until(lambda: _answers(folder, process), "PgBouncer is ready")
        yield f"host={folder}&port={_PORT}"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _answers(folder: Path, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, (folder / "out").read_text()
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(f"{folder}/.s.PGSQL.{_PORT}")
    return True


def through(url: str, query: str, server: Server | None = None) -> str:
    """The same database, by way of a PgBouncer."""
    there = server or shared_server()
    return url.replace(f"host={there.folder}", query)
