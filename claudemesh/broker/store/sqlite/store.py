"""The embedded store: one SQLite file, one connection, whole transactions."""

from __future__ import annotations

from pathlib import Path

from claudemesh.broker.store.sqlite.acts import SqliteActs
from claudemesh.broker.store.sqlite.audit import SqliteAudit
from claudemesh.broker.store.sqlite.blobs import SqliteBlobs
from claudemesh.broker.store.sqlite.departing import SqliteDeparted
from claudemesh.broker.store.sqlite.directory import SqliteDirectory
from claudemesh.broker.store.sqlite.history import SqliteHistory
from claudemesh.broker.store.sqlite.members import SqliteMembers
from claudemesh.broker.store.sqlite.meshes import SqliteMeshes
from claudemesh.broker.store.sqlite.messages import SqliteMessages
from claudemesh.broker.store.sqlite.presence import SqlitePresence
from claudemesh.broker.store.sqlite.queries import QUERIES as _Q
from claudemesh.broker.store.sqlite.restoring import SqliteRestoring
from claudemesh.broker.store.sqlite.retention import SqliteRetention
from claudemesh.broker.store.sqlite.rotations import SqliteRotations
from claudemesh.broker.store.sqlite.topic_deletion import SqliteTopicDeletions
from claudemesh.broker.store.sqlite.topic_keys import SqliteTopicKeys
from claudemesh.broker.store.sqlite.topics import SqliteTopics
from claudemesh.broker.store.sqlite.upkeep import SqliteUpkeep
from claudemesh.broker.store.sqlite.usage import SqliteUsage
from claudemesh.broker.store.sqlite.work_queues import SqliteQueues
from claudemesh.runtime.migrations import load_migrations
from claudemesh.runtime.sqlite import Database, OnFailure


class SqliteStore:
    """The `Store` of an embedded broker. No other broker opens its file."""

    meshes: SqliteMeshes
    members: SqliteMembers
    rotations: SqliteRotations
    acts: SqliteActs
    departed: SqliteDeparted
    topic_deletions: SqliteTopicDeletions
    topic_keys: SqliteTopicKeys
    topics: SqliteTopics
    directory: SqliteDirectory
    messages: SqliteMessages
    history: SqliteHistory
    queues: SqliteQueues
    presence: SqlitePresence
    audit: SqliteAudit
    upkeep: SqliteUpkeep
    retention: SqliteRetention
    usage: SqliteUsage
    restoring: SqliteRestoring
    blobs: SqliteBlobs
    cluster: None = None

    def __init__(self, path: Path, on_failure: OnFailure | None = None) -> None:
        self._path = path
        self._on_failure = on_failure
        self._database: Database | None = None

    @property
    def database(self) -> Database:
        """The open file, for its upkeep."""
        if self._database is None:
            raise RuntimeError("the store is not open")
        return self._database

    async def open(self) -> None:
        """Open or create the file and bring its schema up to date."""
        migrations = load_migrations("claudemesh.broker.store.sqlite.migrations")
        self._database = database = await Database.open(self._path, migrations, self._on_failure)
        self.meshes = SqliteMeshes(database)
        self.members = SqliteMembers(database)
        self.rotations = SqliteRotations(database)
        self.acts = SqliteActs(database)
        self.departed = SqliteDeparted(database)
        self.topic_deletions = SqliteTopicDeletions(database)
        self.topic_keys = SqliteTopicKeys(database)
        self.topics = SqliteTopics(database)
        self.directory = SqliteDirectory(database)
        self.messages = SqliteMessages(database)
        self.history = SqliteHistory(database)
        self.queues = SqliteQueues(database)
        self.presence = SqlitePresence(database)
        self.audit = SqliteAudit(database)
        self.upkeep = SqliteUpkeep(database)
        self.retention = SqliteRetention(database)
        self.usage = SqliteUsage(database)
        self.restoring = SqliteRestoring(database)
        self.blobs = SqliteBlobs(database, self._path.parent / "blobs")

    async def close(self) -> None:
        """Close the file."""
        database, self._database = self._database, None
        if database is not None:
            await database.close()

    async def ping(self) -> None:
        """Return when the database answers."""
        await self.database.run(lambda raw: raw.execute("SELECT 1").fetchone())

    async def store_epoch(self) -> str:
        """Return the store epoch."""
        row = await self.database.run(lambda raw: raw.execute(_Q["epoch"]).fetchone())
        return str(row[0])

    async def renew_store_epoch(self, store_epoch: str) -> None:
        """Write a new store epoch: the data has lost something."""
        await self.database.transaction(lambda raw: raw.execute(_Q["renew_epoch"], (store_epoch,)))

    async def newest_history(self) -> int:
        """Return the newest history id that was given out, whether or not its message is still there."""
        row = await self.database.run(lambda raw: raw.execute(_Q["newest_history"]).fetchone())
        return 0 if row is None else int(row[0])
