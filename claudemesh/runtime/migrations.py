"""Schema migrations: numbered .sql files, forward only, one transaction each."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from claudemesh.runtime.errors import SchemaTooNew

_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
# A line of a migration that stands for a file beside the package: `-- include: functions/accept_v2.sql`.
_INCLUDE = re.compile(r"^-- include: ([a-z0-9_]+)/([a-z0-9_]+\.sql)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: its number, from 1 without gaps, and its statements."""

    version: int
    sql: str


def load_migrations(package: str) -> Sequence[Migration]:
    """Read a package's `NNNN_words.sql` files in order, with what they include.

    `ValueError` when a number is missing.
    """
    found = []
    for entry in files(package).iterdir():
        match = _NAME.match(entry.name)
        if match:
            found.append(Migration(int(match[1]), _included(package, entry.read_text(encoding="utf-8"))))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"{package}: migrations must be numbered from 0001 without gaps")
    return found


def _included(package: str, sql: str) -> str:
    """Return a migration with its include lines replaced by the files that they name."""
    parent = files(package.rpartition(".")[0])
    return _INCLUDE.sub(lambda line: parent.joinpath(line[1], line[2]).read_text(encoding="utf-8"), sql)


def apply_migrations(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> int:
    """Bring a SQLite file up to date and return its version. Two processes may do it at once.

    Raises `SchemaTooNew`, and changes nothing, when the file is ahead of this program.
    """
    newest = migrations[-1].version if migrations else 0
    while True:
        connection.execute("BEGIN IMMEDIATE")
        try:
            version: int = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > newest:
                raise SchemaTooNew(
                    f"schema {version} is newer than this program's {newest}: upgrade claudemesh"
                )
            if version == newest:
                connection.execute("COMMIT")
                return version
            step = migrations[version]
            for statement in split_statements(step.sql):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {step.version}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def split_statements(script: str) -> list[str]:
    """Split a script into statements. `executescript` would commit the open transaction."""
    statements: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        if not pending and (not line.strip() or line.lstrip().startswith("--")):
            continue
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending.strip())
            pending = ""
    if pending.strip():
        raise ValueError("the script ends inside a statement")
    return statements
