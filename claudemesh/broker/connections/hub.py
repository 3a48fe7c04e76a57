"""Registry of the connections on this broker, by mesh and member. State changes without waiting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from claudemesh.broker.connections.clone_policy import Verdict, judge
from claudemesh.broker.connections.link import Link, Push
from claudemesh.protocol import CloseCode
from claudemesh.protocol.frames import encode_event


@dataclass(frozen=True, slots=True)
class Admission:
    """Result of admitting a connection. `replaced` are out of the hub and are to be closed with 4003."""

    verdict: Verdict
    others: int
    replaced: tuple[Link, ...] = ()


class Hub:
    """The connections of one broker, at most 10,000 of them (the listener refuses more)."""

    def __init__(self, connections_per_member: int) -> None:
        self._per_member = connections_per_member
        self._meshes: dict[str, dict[str, list[Link]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Link]:
        for members in list(self._meshes.values()):
            for links in list(members.values()):
                yield from list(links)

    def admit(self, link: Link, policy: str, *, elsewhere: int = 0) -> Admission:
        """Let a connection in, or not; who is replaced is out of the hub when this returns.

        A connection of the same instance is what is left of a broken one: it always makes way, and
        is no clone. `elsewhere` counts the member's connections on other brokers.
        """
        links = self._meshes.setdefault(link.mesh_id, {}).setdefault(link.member_id, [])
        stale = tuple(other for other in links if other.instance_id == link.instance_id)
        others = len(links) - len(stale) + elsewhere
        verdict = judge(policy, others=others, limit=self._per_member)
        if verdict is Verdict.REFUSE:
            return Admission(verdict, others)
        replaced = tuple(links) if verdict is Verdict.REPLACE else stale
        for other in replaced:
            links.remove(other)
        links.append(link)
        self._count += 1 - len(replaced)
        return Admission(verdict, others, replaced)

    def leave(self, link: Link) -> bool:
        """Take a connection out; return whether it was in."""
        members = self._meshes.get(link.mesh_id, {})
        links = members.get(link.member_id, [])
        if link not in links:
            return False
        links.remove(link)
        self._count -= 1
        if not links:
            del members[link.member_id]
        if not members:
            del self._meshes[link.mesh_id]
        return True

    def links(self, mesh_id: str, member_id: str) -> Sequence[Link]:
        """Return a member's connections."""
        return tuple(self._meshes.get(mesh_id, {}).get(member_id, ()))

    def size(self, mesh_id: str) -> int:
        """Count the members of a mesh that are connected here."""
        return len(self._meshes.get(mesh_id, ()))

    def others(self, mesh_id: str, member_id: str, instance_id: str) -> int:
        """Count a member's connections of other instances."""
        return sum(link.instance_id != instance_id for link in self.links(mesh_id, member_id))

    def away(self, mesh_id: str, member_ids: Iterable[str]) -> list[str]:
        """Return those of these members that other brokers may hold."""
        members = self._meshes.get(mesh_id, {})
        return [
            member_id
            for member_id in member_ids
            if not (links := members.get(member_id)) or links[0].may_be_elsewhere
        ]

    def online(self, mesh_id: str) -> Set[str]:
        """Return the ids of the members that are connected here, as a view."""
        return self._meshes.get(mesh_id, {}).keys()

    def of_mesh(self, mesh_id: str) -> Iterator[Link]:
        """Go through the open connections of a mesh."""
        for links in list(self._meshes.get(mesh_id, {}).values()):
            for link in list(links):
                if link.is_open:
                    yield link

    def push(self, mesh_id: str, member_id: str, push: Push) -> None:
        """Hand a delivery to each of the recipient's connections; the store keeps it for the others."""
        for link in self.links(mesh_id, member_id):
            link.push(push)

    def refresh(self) -> None:
        """Let every connection look into the store for what it is owed."""
        for link in self:
            if link.is_open:
                link.refresh()

    def tell(
        self, mesh_id: str, event: str, data: Mapping[str, object], *, besides: str | None = None
    ) -> None:
        """Send an event to every open connection of a mesh, but for those of the member `besides`."""
        frame = encode_event(event, data)
        for member_id, links in list(self._meshes.get(mesh_id, {}).items()):
            if member_id != besides:
                for link in list(links):
                    if link.is_open:
                        link.put(frame)

    def tell_members(
        self, mesh_id: str, member_ids: Iterable[str], event: str, data: Mapping[str, object]
    ) -> None:
        """Send an event to the open connections of these members."""
        frame = encode_event(event, data)
        for member_id in member_ids:
            for link in self.links(mesh_id, member_id):
                if link.is_open:
                    link.put(frame)

    def disconnect(self, mesh_id: str, member_id: str, code: CloseCode, detail: str = "") -> None:
        """Close every connection of a member."""
        for link in self.links(mesh_id, member_id):
            link.close(code, detail)
