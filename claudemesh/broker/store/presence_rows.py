"""Rows about connections: leases, and when members were seen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PresenceRow:
    """One connection's lease; it counts as online until `lease_until`. Both times are of the lived clock."""

    connection_id: str
    member_id: str
    mesh_id: str
    broker_id: str
    connected_at: int
    lease_until: int
    instance_id: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A member was here at this wall time, on this host if it named one."""

    mesh_id: str
    member_id: str
    at_ms: int
    host: bytes | None
