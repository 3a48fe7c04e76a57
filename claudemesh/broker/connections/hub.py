"""The registry of this broker's connections, by mesh and member. No method waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

from msgspec import Struct

from claudemesh.broker.connections.clone_policy import CloneVerdict, judge
from claudemesh.broker.connections.open_connection import OpenConnection, Push
from claudemesh.protocol.errors import CloseCode
from claudemesh.protocol.frames import encode_event


class Admission(Struct, frozen=True):
    """The outcome of an admission.

    `others` counts the member's connections of other instances. `replaced` are out of the registry and have
    to be closed with 4003.
    """

    verdict: CloneVerdict
    others: int
    replaced: tuple[OpenConnection, ...] = ()


class Hub:
    """The connections of one broker; the listener bounds their number (`Limits.connections`)."""

    def __init__(self, connections_per_member: int) -> None:
        self._per_member = connections_per_member
        self._meshes: dict[str, dict[str, list[OpenConnection]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[OpenConnection]:
        for members in list(self._meshes.values()):
            for connections in list(members.values()):
                yield from list(connections)

    def admit(self, connection: OpenConnection, policy: str, *, elsewhere: int = 0) -> Admission:
        """Decide by the clone policy whether a connection is registered, and remove those that it replaces.

        A connection of the same instance is the rest of a broken one: it is always replaced and counts as no
        clone. `elsewhere` counts the member's connections on other brokers.
        """
        connections = self._meshes.setdefault(connection.mesh_id, {}).setdefault(connection.member_id, [])
        stale = tuple(other for other in connections if other.instance_id == connection.instance_id)
        others = len(connections) - len(stale) + elsewhere
        verdict = judge(policy, others=others, limit=self._per_member)
        if verdict is CloneVerdict.REFUSE:
            return Admission(verdict, others)
        replaced = tuple(connections) if verdict is CloneVerdict.REPLACE else stale
        for other in replaced:
            connections.remove(other)
        connections.append(connection)
        self._count += 1 - len(replaced)
        return Admission(verdict, others, replaced)

    def leave(self, connection: OpenConnection) -> bool:
        """Remove a connection. False: it was not registered."""
        members = self._meshes.get(connection.mesh_id, {})
        connections = members.get(connection.member_id, [])
        if connection not in connections:
            return False
        connections.remove(connection)
        self._count -= 1
        if not connections:
            del members[connection.member_id]
        if not members:
            del self._meshes[connection.mesh_id]
        return True

    def of_member(self, mesh_id: str, member_id: str) -> Sequence[OpenConnection]:
        """Return a member's connections."""
        return tuple(self._meshes.get(mesh_id, {}).get(member_id, ()))

    def size(self, mesh_id: str) -> int:
        """Count the members of a mesh that are connected here."""
        return len(self._meshes.get(mesh_id, ()))

    def others(self, mesh_id: str, member_id: str, instance_id: str) -> int:
        """Count a member's connections of other instances."""
        return sum(connection.instance_id != instance_id for connection in self.of_member(mesh_id, member_id))

    def away(self, mesh_id: str, member_ids: Iterable[str]) -> list[str]:
        """Return the members among these that may be connected to other brokers."""
        members = self._meshes.get(mesh_id, {})
        return [
            member_id
            for member_id in member_ids
            if not (connections := members.get(member_id)) or connections[0].may_be_elsewhere
        ]

    def online(self, mesh_id: str) -> Set[str]:
        """Return the ids of the members that are connected here, as a view."""
        return self._meshes.get(mesh_id, {}).keys()

    def of_mesh(self, mesh_id: str) -> Iterator[OpenConnection]:
        """Iterate over the open connections of a mesh."""
        for connections in list(self._meshes.get(mesh_id, {}).values()):
            for connection in list(connections):
                if connection.is_open:
                    yield connection

    def push(self, mesh_id: str, member_id: str, push: Push) -> None:
        """Deliver a message on each of the recipient's connections."""
        for connection in self.of_member(mesh_id, member_id):
            connection.push(push)

    def refresh(self) -> None:
        """Let every open connection read its deliveries from the store."""
        for connection in self:
            if connection.is_open:
                connection.refresh()

    def broadcast(
        self, mesh_id: str, event: str, data: Mapping[str, object], *, besides: str | None = None
    ) -> None:
        """Send an event to every open connection of a mesh, except those of the member `besides`."""
        frame = encode_event(event, data)
        for member_id, connections in list(self._meshes.get(mesh_id, {}).items()):
            if member_id != besides:
                for connection in list(connections):
                    if connection.is_open:
                        connection.put(frame)

    def broadcast_to(
        self, mesh_id: str, member_ids: Iterable[str], event: str, data: Mapping[str, object]
    ) -> None:
        """Send an event to the open connections of some members."""
        frame = encode_event(event, data)
        for member_id in member_ids:
            for connection in self.of_member(mesh_id, member_id):
                if connection.is_open:
                    connection.put(frame)

    def disconnect(
        self, mesh_id: str, member_id: str, code: CloseCode, detail: str = "", *, besides: str = ""
    ) -> None:
        """Close every connection of a member, except the one with the id `besides`."""
        for connection in self.of_member(mesh_id, member_id):
            if connection.connection_id != besides:
                connection.close(code, detail)
