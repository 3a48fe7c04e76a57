"""The interface of an open connection for the parts that send to it, and the delivery that it is given."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from claudemesh.broker.store.types import Member
from claudemesh.protocol.errors import CloseCode
from claudemesh.protocol.frames import encode_deliver


class Push(Struct, frozen=True):
    """One delivery. The rest of its frame behind the delivery id is encoded once for all recipients."""

    delivery_id: int
    priority: int
    tail: str

    def frame(self) -> str:
        """Return the `deliver` frame."""
        return encode_deliver(self.delivery_id, self.tail)


class OpenConnection(Protocol):
    """A connection whose member is authenticated. No method waits."""

    @property
    def mesh_id(self) -> str: ...
    @property
    def member_id(self) -> str: ...
    @property
    def instance_id(self) -> str: ...
    @property
    def connection_id(self) -> str: ...

    @property
    def is_open(self) -> bool:
        """Whether features are negotiated, so that events and deliveries may be sent."""
        ...

    @property
    def wants_presence(self) -> bool:
        """Whether the peer takes one presence event for many members."""
        ...

    @property
    def may_be_elsewhere(self) -> bool:
        """Whether the mesh's clone policy lets its member be connected more than once."""
        ...

    def account(self) -> dict[str, object]:
        """Return what operators see of the connection."""
        ...

    def put(self, frame: str) -> None:
        """Append a frame to the outbound queue."""
        ...

    def push(self, push: Push) -> None:
        """Deliver a message that has just been committed."""
        ...

    def refresh(self) -> None:
        """Read the deliveries owed to the member from the store."""
        ...

    def knows(self, delivery_id: int) -> bool:
        """Return whether a delivery is on its way, or will be found by a read that is due anyway."""
        ...

    def rekey(self, member: Member) -> None:
        """Take sends that are signed by the member's new key, from now on."""
        ...

    def close(self, code: CloseCode, detail: str = "") -> None:
        """Close after the outbound queue is written."""
        ...
