"""The store of a broker: `Store`, which holds a facet for each kind of data, and the promises of them all.

The facets stand in store/facets.py. Two engines implement them, one module for each, and one contract
suite holds both to what is written here (tests/contract/store). The promises of every facet:

* A method returns after its transaction is committed, so that what it reports survives a crash.
* `StorageError` (runtime/errors.py) is raised when the database does not answer or the outcome is unknown.
  The call may be repeated: accepting finds what it wrote before, and other writes find what is done.
* No method deletes or expires anything by wall time. Arguments named `lived_ms` are times of the lived clock;
  `now_ms` is wall time and only stored or shown, except for the expiry of an invite.
* A method never returns more rows than its `limit`, or one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from claudemesh.broker.store.acts import Acted
from claudemesh.broker.store.blobs import BlobStore
from claudemesh.broker.store.departing import DepartedStore
from claudemesh.broker.store.facets import (
    AuditStore,
    DirectoryStore,
    MemberStore,
    MeshStore,
    MessageStore,
    PresenceStore,
    QueueStore,
    RestoreStore,
    RetentionStore,
    RotationStore,
    UpkeepStore,
    UsageStore,
)
from claudemesh.broker.store.history import HistoryStore
from claudemesh.broker.store.topic_deletion import TopicDeletionStore
from claudemesh.broker.store.topic_keys import TopicKeyStore
from claudemesh.broker.store.topics import TopicStore
from claudemesh.broker.store.types import (
    Lease,
    Life,
    Member,
    PresenceRow,
)
from claudemesh.protocol.authority import Refusal
from claudemesh.protocol.statements import Statement


class ClusterStore(Protocol):
    """Signals, leases and clocks of brokers that share a database."""

    def hold_mark(self, mark: int, on_compared: Callable[[bool], None]) -> None:
        """Hold the mark of this broker's admin token (cluster/token_mark.py) whenever `listen` runs.

        `on_compared` gets, repeatedly, whether another broker holds a different one.
        """
        ...

    async def now_ms(self) -> int:
        """Return the wall time of the database's server."""
        ...

    async def store_epoch(self) -> str:
        """Return the store epoch: it changes with a restore or a failover."""
        ...

    async def life(self) -> Life:
        """Return when the server was started, and the newest history id that it has given out."""
        ...

    def accept_from(self, life: Life) -> None:
        """Let sends be accepted by the server of this life alone."""
        ...

    async def exchanged(self) -> None:
        """Return when another server than that has been asked to accept a send."""
        ...

    async def marks_differ(self, mark: int) -> bool:
        """Return whether another running broker holds a different mark."""
        ...

    async def signal(self, payloads: Sequence[str]) -> None:
        """Notify every listening broker, in a transaction that writes nothing else."""
        ...

    async def listen(
        self, hear: Callable[[str], None], resumed: Callable[[], None], worked: Callable[[], None]
    ) -> None:
        """Pass each signal to `hear` until the connection ends.

        `resumed` is called once listening has begun, `worked` for each proof that the connection is alive.
        """
        ...

    async def acquire_lease(
        self, row: PresenceRow, admits: Callable[[Sequence[PresenceRow]], bool]
    ) -> Sequence[PresenceRow]:
        """Write a lease if `admits` agrees to the member's leases at other brokers; returns those.

        Two brokers that do so for one member are served one after the other.
        """
        ...

    async def leases(self, mesh_ids: Collection[str], now_ms: int) -> Mapping[str, Sequence[Lease]]:
        """Return the leases of each mesh, of every broker."""
        ...

    async def without_lease(self, connection_ids: Collection[str]) -> Collection[str]:
        """Return the ids among `connection_ids` that hold no lease."""
        ...

    async def expire(self, now_ms: int) -> None:
        """Delete leases that have run out."""
        ...

    async def has_company(self, broker_id: str) -> bool:
        """Return whether another broker holds a lease. Expired leases are to be deleted before."""
        ...

    async def deliveries_since(
        self, after: int | None, member_ids: Collection[str]
    ) -> tuple[int, Sequence[tuple[int, str]]]:
        """Return the newest delivery id, and (id, recipient) of those behind `after` for some members.

        With `after` None only the newest id is read.
        """
        ...

    async def inactive(self, member_ids: Collection[str]) -> Collection[str]:
        """Return the ids among `member_ids` of members that were revoked or have left."""
        ...


class ActStore(Protocol):
    """Acts of members about members: each decides and writes in one transaction (store/acts.py).

    A `Refusal` has written nothing. An act that was done before is done again without a change.
    """

    async def rename(self, mesh_id: str, member_id: str, name: str) -> Acted | Refusal:
        """Give an active member another name, and release the one that it had."""
        ...

    async def leave(self, mesh_id: str, member_id: str, *, force: bool) -> Acted | Refusal:
        """Set a member to `left`. The last owner needs `force`."""
        ...

    async def revoke(self, statement: Statement, by_id: str, *, force: bool) -> Acted | Refusal:
        """Set the subject of a verified statement to `revoked`, and keep the statement."""
        ...

    async def give_role(self, statement: Statement, by_id: str, *, force: bool) -> Acted | Refusal:
        """Give the subject of a verified statement its role, and keep the statement."""
        ...

    async def revocation(self, member: Member) -> str | None:
        """Return the statement that has revoked a member, as JSON. None: no member has signed one."""
        ...


class Store(Protocol):
    """The store of one broker. The facets exist while it is open."""

    async def open(self) -> None:
        """Open the database and bring its schema up to date. `SchemaTooNew`: by a later release."""
        ...

    async def close(self) -> None:
        """Close the database."""
        ...

    async def ping(self) -> None:
        """Return when the database answers."""
        ...

    async def store_epoch(self) -> str:
        """Return the store epoch, which names one life of the data (docs/spec/protocol.md, hello_ack)."""
        ...

    @property
    def meshes(self) -> MeshStore: ...
    @property
    def members(self) -> MemberStore: ...
    @property
    def rotations(self) -> RotationStore: ...
    @property
    def acts(self) -> ActStore: ...
    @property
    def departed(self) -> DepartedStore: ...
    @property
    def topic_deletions(self) -> TopicDeletionStore: ...
    @property
    def topic_keys(self) -> TopicKeyStore: ...
    @property
    def topics(self) -> TopicStore: ...
    @property
    def directory(self) -> DirectoryStore: ...
    @property
    def messages(self) -> MessageStore: ...
    @property
    def history(self) -> HistoryStore: ...
    @property
    def queues(self) -> QueueStore: ...
    @property
    def presence(self) -> PresenceStore: ...
    @property
    def audit(self) -> AuditStore: ...
    @property
    def upkeep(self) -> UpkeepStore: ...
    @property
    def retention(self) -> RetentionStore: ...
    @property
    def usage(self) -> UsageStore: ...
    @property
    def restoring(self) -> RestoreStore: ...
    @property
    def blobs(self) -> BlobStore: ...

    @property
    def cluster(self) -> ClusterStore | None:
        """None for an embedded broker, which shares its database with no other."""
        ...
