"""Copies of a broker's data, taken and put back in every way that an operator does it, and of a host."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.support.postgres import Server, binaries, sql
from tests.support.processes import Daemon, Mesh
from tests.support.waiting import WAIT_S


def copy_running(daemon: Daemon, home: Path) -> None:
    """Copy the home of a running daemon to `home`, as an image of its machine at one moment has it."""
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        shutil.copytree(daemon.home, home, ignore=shutil.ignore_patterns("sock"))
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


class Copy:
    """One copy. `take` and `put_back` find the broker stopped, and leave it stopped."""

    def __init__(self, made: Mesh, server: Server | None = None) -> None:
        self.made = made
        self.data = made.broker.data
        self.image = made.root / "image"
        self.server = server

    def take(self) -> None:
        raise NotImplementedError

    def put_back(self) -> None:
        raise NotImplementedError


class Directory(Copy):
    """The whole data directory, also with what the broker noted beside its database."""

    def take(self) -> None:
        shutil.copytree(self.data, self.image)

    def put_back(self) -> None:
        shutil.rmtree(self.data)
        shutil.copytree(self.image, self.data)
        self.data.chmod(0o700)


class DatabaseFile(Copy):
    """Only broker.db, as a stopped broker leaves it."""

    def take(self) -> None:
        shutil.copy(self.data / "broker.db", self.image)

    def put_back(self) -> None:
        for suffix in ("-wal", "-shm"):
            (self.data / f"broker.db{suffix}").unlink(missing_ok=True)
        shutil.copy(self.image, self.data / "broker.db")


class SqlDump(DatabaseFile):
    """A dump in SQL, read into a new file."""

    def take(self) -> None:
        with closing(sqlite3.connect(self.data / "broker.db")) as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            script = "\n".join([*database.iterdump(), f"PRAGMA user_version = {version};"])
        with closing(sqlite3.connect(self.image)) as target:
            target.executescript(script)
        self.image.chmod(0o600)


class PostgresDirectory(Copy):
    """The cluster's directory of a stopped server, started again as it was."""

    ending = signal.SIGINT

    def take(self) -> None:
        server = self._server()
        server.stop(self.ending)
        _copy_tree(server.data, self.image)
        server.start()

    def put_back(self) -> None:
        server = self._server()
        server.stop()
        shutil.rmtree(server.data)
        _copy_tree(self.image, server.data)
        server.start()

    def _server(self) -> Server:
        assert self.server is not None
        return self.server


class PostgresSnapshot(PostgresDirectory):
    """A snapshot of the volume: what a crash leaves, and the server recovers from."""

    ending = signal.SIGQUIT


class PostgresDump(PostgresDirectory):
    """`pg_dump`, read into the database after the schema was dropped."""

    def take(self) -> None:
        self.image.write_bytes(_run("pg_dump", "-d", self._server().url(), "--no-owner"))

    def put_back(self) -> None:
        asyncio.run(sql(self._server().url(), "DROP SCHEMA mesh CASCADE", "SELECT 1"))
        _run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", self._server().url(), "-f", str(self.image))


class PostgresData(PostgresDump):
    """Only the rows, read into the tables that are there: the same cluster, database and tables."""

    def take(self) -> None:
        tables = _run("pg_dump", "-d", self._server().url(), "--data-only", "--disable-triggers")
        self.image.write_bytes(tables)

    def put_back(self) -> None:
        asyncio.run(sql(self._server().url(), _TRUNCATE, "SELECT 1"))
        _run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", self._server().url(), "-f", str(self.image))


_TRUNCATE = """DO $$ DECLARE names text; BEGIN
  SELECT string_agg(format('mesh.%I', tablename), ', ') INTO names FROM pg_tables WHERE schemaname = 'mesh';
  EXECUTE 'TRUNCATE ' || names; END $$"""

SQLITE: dict[str, Callable[[Mesh], Copy]] = {
    "directory": Directory,
    "file": DatabaseFile,
    "dump": SqlDump,
}
POSTGRES: dict[str, Callable[[Mesh, Server], Copy]] = {
    "directory": PostgresDirectory,
    "snapshot": PostgresSnapshot,
    "dump": PostgresDump,
    "rows": PostgresData,
}


def _copy_tree(source: Path, target: Path) -> None:
    """Copy a cluster, with its owner: the server of the tests does not run as root."""
    shutil.copytree(source, target, symlinks=True)
    owner = source.stat() if source.exists() else None
    if owner is not None and os.geteuid() == 0:
        for path in (target, *target.rglob("*")):
            os.lchown(path, owner.st_uid, owner.st_gid)
    target.chmod(0o700)


def _run(program: str, *arguments: str) -> bytes:
    found = binaries() / program
    done = subprocess.run([str(found), *arguments], capture_output=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
