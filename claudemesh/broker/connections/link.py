"""Links: what the registry needs of an open connection, and the delivery that it hands to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from claudemesh.protocol import CloseCode
from claudemesh.protocol.frames import encode_deliver


@dataclass(frozen=True, slots=True)
class Push:
    """One delivery: all of the frame but the start is shared by every recipient of the message."""

    delivery_id: int
    priority: int
    tail: str

    def frame(self) -> str:
        """Return the `deliver` frame."""
        return encode_deliver(self.delivery_id, self.tail)


class Link(Protocol):
    """Connection as the hub sees it. No method waits."""

    @property
    def mesh_id(self) -> str: ...
    @property
    def member_id(self) -> str: ...
    @property
    def instance_id(self) -> str: ...
    @property
    def connection_id(self) -> str: ...
    @property
    def is_open(self) -> bool: ...
    @property
    def hears_presence(self) -> bool: ...
    @property
    def may_be_elsewhere(self) -> bool: ...
    def put(self, frame: str) -> None: ...
    def push(self, push: Push) -> None: ...
    def refresh(self) -> None: ...
    def knows(self, delivery_id: int) -> bool: ...
    def close(self, code: CloseCode, detail: str = "") -> None: ...
