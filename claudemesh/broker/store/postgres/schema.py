"""Migrations on Postgres: one transaction each, one process at a time, on our own schema only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.runtime.errors import SchemaTooNew
from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.migrations import Migration

# An arbitrary number, the same in every version of this program.
_LOCK = 0x636C_6175_6465


async def migrate(connection: Any, migrations: Sequence[Migration]) -> int:
    """Bring the schema `mesh` up to date and return its version. Two processes may do it at once.

    Raises `SchemaTooNew` when it is ahead of this program, `ExitWith` when it belongs to another program.
    Nothing is changed then.
    """
    newest = migrations[-1].version if migrations else 0
    while True:
        async with connection.transaction():
            await connection.execute(_Q["migration_lock"], _LOCK)
            version = await _version(connection)
            if version > newest:
                raise SchemaTooNew(
                    f"schema {version} is newer than this program's {newest}: upgrade claudemesh"
                )
            if version == newest:
                return version
            if version == 0:
                if not await connection.fetchval(_Q["schema_exists"]):
                    await connection.execute(_Q["schema_create"])
                await connection.execute(_Q["migration_table"])
            step = migrations[version]
            await connection.execute(step.sql)
            await connection.execute(_Q["migration_note"], step.version)


async def _version(connection: Any) -> int:
    """Return the newest migration that was applied, 0 when there is nothing yet."""
    if not await connection.fetchval(_Q["migration_table_exists"]):
        if await connection.fetchval(_Q["relations"]):
            raise _foreign("it holds tables, but no list of migrations")
        return 0
    if await connection.fetchval(_Q["migration_columns"]) != ["version", "applied_at"]:
        raise _foreign("its list of migrations is not ours")
    versions = [row[0] for row in await connection.fetch(_Q["migration_list"])]
    if versions != list(range(1, len(versions) + 1)):
        raise _foreign("its list of migrations has gaps")
    return len(versions)


def _foreign(why: str) -> ExitWith:
    return ExitWith(
        CONFIGURATION,
        "schema_foreign",
        f"The schema mesh of the database is not one of claudemesh ({why}). Name another database.",
    )
