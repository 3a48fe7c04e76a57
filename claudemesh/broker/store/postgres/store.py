"""The store of brokers that share a Postgres: whole transactions, and errors of ours alone."""

from __future__ import annotations

from claudemesh.broker.store.deadlines import DEADLINES, DatabaseDeadlines
from claudemesh.broker.store.postgres.acts import PostgresActs
from claudemesh.broker.store.postgres.audit import PostgresAudit
from claudemesh.broker.store.postgres.blobs import PostgresBlobs
from claudemesh.broker.store.postgres.cluster import PostgresCluster
from claudemesh.broker.store.postgres.departing import PostgresDeparted
from claudemesh.broker.store.postgres.directory import PostgresDirectory
from claudemesh.broker.store.postgres.history import PostgresHistory
from claudemesh.broker.store.postgres.known_server import KnownServer
from claudemesh.broker.store.postgres.members import PostgresMembers
from claudemesh.broker.store.postgres.meshes import PostgresMeshes
from claudemesh.broker.store.postgres.messages import PostgresMessages
from claudemesh.broker.store.postgres.pools import Pools
from claudemesh.broker.store.postgres.preflight import prepare_database
from claudemesh.broker.store.postgres.presence import PostgresPresence
from claudemesh.broker.store.postgres.queries import QUERIES as _Q
from claudemesh.broker.store.postgres.restoring import PostgresRestoring
from claudemesh.broker.store.postgres.retention import PostgresRetention
from claudemesh.broker.store.postgres.rotations import PostgresRotations
from claudemesh.broker.store.postgres.topic_deletion import PostgresTopicDeletions
from claudemesh.broker.store.postgres.topic_keys import PostgresTopicKeys
from claudemesh.broker.store.postgres.topics import PostgresTopics
from claudemesh.broker.store.postgres.upkeep import PostgresUpkeep
from claudemesh.broker.store.postgres.usage import PostgresUsage
from claudemesh.broker.store.postgres.work_queues import PostgresQueues


class PostgresStore:
    """The `Store` of brokers that share a database.

    `allow_unsafe` accepts a server that could lose what it acknowledged in a power failure.
    """

    meshes: PostgresMeshes
    members: PostgresMembers
    rotations: PostgresRotations
    acts: PostgresActs
    departed: PostgresDeparted
    topic_deletions: PostgresTopicDeletions
    topic_keys: PostgresTopicKeys
    topics: PostgresTopics
    directory: PostgresDirectory
    messages: PostgresMessages
    history: PostgresHistory
    queues: PostgresQueues
    presence: PostgresPresence
    audit: PostgresAudit
    upkeep: PostgresUpkeep
    retention: PostgresRetention
    usage: PostgresUsage
    restoring: PostgresRestoring
    blobs: PostgresBlobs
    cluster: PostgresCluster

    def __init__(
        self, database_url: str, *, allow_unsafe: bool = False, deadlines: DatabaseDeadlines = DEADLINES
    ) -> None:
        self._database_url = database_url
        self._deadlines = deadlines
        self._allow_unsafe = allow_unsafe
        self._pools: Pools | None = None

    @property
    def pools(self) -> Pools:
        """The connections, while the store is open."""
        if self._pools is None:
            raise RuntimeError("the store is not open")
        return self._pools

    async def open(self) -> None:
        """Check the database, bring its schema up to date, and connect."""
        url, deadlines = self._database_url, self._deadlines
        await prepare_database(url, allow_unsafe=self._allow_unsafe, connect_s=deadlines.connect_s)
        self._pools = pools = await Pools.open(url, deadlines)
        server = KnownServer()
        self.meshes = PostgresMeshes(pools)
        self.members = PostgresMembers(pools)
        self.rotations = PostgresRotations(pools)
        self.acts = PostgresActs(pools)
        self.departed = PostgresDeparted(pools)
        self.topic_deletions = PostgresTopicDeletions(pools)
        self.topic_keys = PostgresTopicKeys(pools)
        self.topics = PostgresTopics(pools)
        self.directory = PostgresDirectory(pools)
        self.messages = PostgresMessages(pools, server)
        self.history = PostgresHistory(pools)
        self.queues = PostgresQueues(pools)
        self.presence = PostgresPresence(pools)
        self.audit = PostgresAudit(pools)
        self.upkeep = PostgresUpkeep(pools)
        self.retention = PostgresRetention(pools)
        self.usage = PostgresUsage(pools)
        self.restoring = PostgresRestoring(pools)
        self.blobs = PostgresBlobs(pools)
        self.cluster = PostgresCluster(url, pools, deadlines, server)

    async def close(self) -> None:
        """Close every connection."""
        pools, self._pools = self._pools, None
        if pools is not None:
            await pools.close()

    async def ping(self) -> None:
        """Return when the database answers."""
        await self.pools.fetch(_Q["ping"])

    async def store_epoch(self) -> str:
        """Return the store epoch."""
        return await self.cluster.store_epoch()
