"""Snapshots of a release: its databases and hosts, put back for today's program."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import asyncpg

from tests.support.postgres import empty_database
from tests.support.processes import REPOSITORY, Daemon, Mesh

SNAPSHOTS = REPOSITORY / "tests" / "migrations" / "snapshots"
HOSTS = ("alice", "bob", "carol", "dave")
ENGINES = ("sqlite", "postgres")


def restored_file(path: Path, dump: Path) -> sqlite3.Connection:
    """Write the file of a dump and return a connection to it in autocommit mode."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(dump.read_text(encoding="utf-8"))
    return connection


async def restore_database(url: str, dump: Path) -> None:
    """Run the statements of a dump in an empty database."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(dump.read_text(encoding="utf-8"))
    finally:
        await connection.close()


@contextmanager
def _database() -> Generator[str]:
    with asyncio.Runner() as runner:
        made = empty_database()
        url = runner.run(made.__aenter__())
        try:
            yield url
        finally:
            runner.run(made.__aexit__(None, None, None))


@contextmanager
def restored_mesh(release: str, engine: str) -> Generator[Mesh]:
    """The mesh of a snapshot: a broker and four hosts, none of them started."""
    folder = SNAPSHOTS / release / engine
    # A short folder: a socket path has at most 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="cm-"))
    with _database() if engine == "postgres" else nullcontext() as url:
        made = Mesh(root, url)
        made.broker.data.mkdir(mode=0o700)
        if url is None:
            restored_file(made.broker.data / "broker.db", folder / "broker.sql").close()
        else:
            asyncio.run(restore_database(url, folder / "broker.sql"))
        for name in HOSTS:
            made.daemons[name] = _restored_host(made, name, folder / name)
        try:
            yield made
        finally:
            made.stop()
            shutil.rmtree(root, ignore_errors=True)


def _restored_host(made: Mesh, name: str, folder: Path) -> Daemon:
    daemon = Daemon(made.root, name, made.slug)
    daemon.root.mkdir(mode=0o700, parents=True)
    for path in folder.glob("*.json"):
        text = path.read_text(encoding="utf-8").replace("127.0.0.1:0", f"127.0.0.1:{made.broker.port}")
        (daemon.root / path.name).touch(mode=0o600)
        (daemon.root / path.name).write_text(text, encoding="utf-8")
    for path in folder.glob("*.sql"):
        restored_file(daemon.root / f"{path.stem}.db", path).close()
    (daemon.root / "config.toml").write_text("[reconnect]\nmax_backoff_ms = 500\n")
    return daemon
