"""A Postgres server of the tests' own: on a unix socket, in a temporary folder, gone with the test run.

The folder is in memory where there is room.
"""

from __future__ import annotations

import atexit
import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg

from tests.support.processes import until
from tests.support.waiting import WAIT_S

SUPERUSER = "postgres"
PASSWORD_USER = "locked"
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "autovacuum": "off",
    "log_min_messages": "warning",
}
_HBA = f"local all {PASSWORD_USER} scram-sha-256\nlocal all all trust\nlocal replication all trust\n"


def binaries() -> Path:
    """The folder of the newest server on this machine."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: path.parts[-3])
    on_path = shutil.which("postgres")
    assert found or on_path, "the tests need a Postgres server (Debian: apt-get install postgresql)"
    return found[-1].parent if found else Path(on_path or "").resolve().parent


def account() -> pwd.struct_passwd | None:
    """Whom to run the server as: Postgres refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("there is no account postgres or nobody to run the server as")


_MEMORY = Path("/dev/shm")
_ROOM = 6 << 30
# Of a group of processes, in version 2 and in version 1: limit, use, and the part of the use that the kernel
# gives back at once.
_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def _in_memory() -> Path | None:
    """Return a folder in memory, None when there is not plenty of it.

    A commit waits for the disk, and so does a new database; a test waits for both many times.
    """
    try:
        place = os.statvfs(_MEMORY)
        [available] = re.findall(
            r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE
        )
    except (OSError, ValueError):
        return None
    room = [place.f_bavail * place.f_frsize, int(available) << 10]
    for group in _GROUPS:
        with suppress(OSError, ValueError):
            room.append(left_in(Path(group[0]), *group[1:]))
    return _MEMORY if min(room) >= _ROOM and os.access(_MEMORY, os.W_OK) else None


def left_in(folder: Path, limit: str, used: str, reclaimable: str) -> int:
    """Return the memory that a group of processes may still take; `ValueError` without a limit."""
    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    taken = int((folder / used).read_text()) - int(stat.get(reclaimable, 0))
    return int((folder / limit).read_text()) - taken


class Server:
    """One server process; its settings can be changed for a start of their own.

    With a `primary`, which must be running, it is a standby that follows it once it is started.
    """

    # Where there is room. A subclass whose commits have to wait for a disk sets False.
    in_memory = True

    def __init__(self, primary: Server | None = None) -> None:
        self._account = account()
        # A short folder: a socket path has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="cm-pg-", dir=_in_memory() if self.in_memory else None))
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self._bin = binaries()
        self._process: subprocess.Popen[bytes] | None = None
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        if primary is None:
            make = ["initdb", "-A", "trust", "-E", "UTF8", "--no-locale"]
        else:
            make = ["pg_basebackup", "-h", str(primary.folder), "-R", "--checkpoint=fast"]
        done = self._run([*make, "-D", str(self.data), "-U", SUPERUSER, "--no-sync"]).wait()
        assert done == 0, self.log.read_text()
        (self.data / "pg_hba.conf").write_text(_HBA)

    def start(self, **changes: str) -> None:
        """Start, and return when it takes connections."""
        settings = _SETTINGS | {"unix_socket_directories": str(self.folder)} | changes
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._process = self._run(["postgres", "-D", str(self.data), *options])

        def ready() -> bool:
            assert self._process is not None and self._process.poll() is None, self.log.read_text()[-3000:]
            return self._run(["pg_isready", "-q", "-h", str(self.folder)]).wait() == 0

        until(ready, "Postgres is ready")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop: SIGINT in good order, SIGQUIT at once, as after a crash."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(WAIT_S)

    def promote(self) -> None:
        """Make a standby that runs the primary; returns when it takes writes."""
        assert self._run(["pg_ctl", "promote", "-w", "-D", str(self.data)]).wait() == 0, self.log.read_text()

    def remove(self) -> None:
        """Stop it for good."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        """The address of a database."""
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def _run(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        # The server does not outlive a test run that was killed, nor, on Linux, the thread that starts it.
        prefix = ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []
        identity: dict[str, Any] = {}
        if self._account is not None:
            identity = {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*prefix, str(self._bin / command[0]), *command[1:]],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
                **identity,
            )


@cache
def shared_server() -> Server:
    """The server of this test run, started when it is first asked for."""
    server = Server()
    atexit.register(server.remove)
    server.start()
    return server


_numbers = itertools.count(1)


async def sql(url: str, *statements: str) -> Any:
    """Run statements as they are and return the last one's first value."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return await connection.fetchval(statements[-1])
    finally:
        await connection.close()


@asynccontextmanager
async def empty_database(server: Server | None = None, *, template: str = "template1") -> AsyncGenerator[str]:
    """A database of the test's own, with nothing in it; yields its address."""
    there = server or shared_server()
    name = f"t{next(_numbers)}"
    await sql(there.url(), f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield there.url(name)
    finally:
        await sql(there.url(), f"DROP DATABASE {name} WITH (FORCE)")
