"""The cluster: events and closes for members, wherever in it they are connected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from claudemesh.broker.cluster.signals import IDS_BESIDE_DATA, Signal, Signals, chunks
from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.store.types import PresenceRow
from claudemesh.protocol.errors import CloseCode

REPLACED = "Another connection of this member was opened."


class Cluster:
    """Reaches the connections of this broker through the hub, and those of other brokers by signals."""

    def __init__(self, hub: Hub, signals: Signals) -> None:
        self._hub = hub
        self._signals = signals
        signals.subscribe("wake", self._on_wake)
        signals.subscribe("tell", self._on_tell)
        signals.subscribe("tell_members", self._on_tell_members)
        signals.subscribe("close", self._on_close)

    def broadcast(
        self, mesh_id: str, event: str, data: Mapping[str, object], *, besides: str | None = None
    ) -> None:
        """Send an event to every open connection of a mesh, except those of the member `besides`."""
        self._hub.broadcast(mesh_id, event, data, besides=besides)
        self._signals.publish("tell", mesh=mesh_id, event=event, data=data, besides=besides)

    def broadcast_to(
        self, mesh_id: str, member_ids: Sequence[str], event: str, data: Mapping[str, object]
    ) -> None:
        """Send an event to the open connections of some members."""
        self._hub.broadcast_to(mesh_id, member_ids, event, data)
        for ids in chunks(member_ids, IDS_BESIDE_DATA):
            self._signals.publish("tell_members", mesh=mesh_id, members=ids, event=event, data=data)

    def disconnect(
        self, mesh_id: str, member_id: str, code: CloseCode, detail: str, *, besides: str = ""
    ) -> None:
        """Close every connection of a member, except the one with the id `besides`."""
        self._hub.disconnect(mesh_id, member_id, code, detail, besides=besides)
        self._signals.publish(
            "close", mesh=mesh_id, member=member_id, code=int(code), detail=detail, besides=besides
        )

    def replace(self, rows: Sequence[PresenceRow]) -> None:
        """Let other brokers close connections that a newer one replaces."""
        for row in rows:
            self._signals.publish(
                "close",
                mesh=row.mesh_id,
                member=row.member_id,
                connection=row.connection_id,
                code=int(CloseCode.REPLACED),
                detail=REPLACED,
            )

    def _on_wake(self, signal: Signal) -> None:
        for member_id in signal["members"]:
            for connection in self._hub.of_member(signal["mesh"], member_id):
                if connection.is_open:
                    connection.refresh()

    def _on_tell(self, signal: Signal) -> None:
        self._hub.broadcast(signal["mesh"], signal["event"], signal["data"], besides=signal["besides"])

    def _on_tell_members(self, signal: Signal) -> None:
        self._hub.broadcast_to(signal["mesh"], signal["members"], signal["event"], signal["data"])

    def _on_close(self, signal: Signal) -> None:
        only, besides = signal.get("connection"), signal.get("besides")
        for connection in self._hub.of_member(signal["mesh"], signal["member"]):
            if only in (None, connection.connection_id) and connection.connection_id != besides:
                connection.close(CloseCode(signal["code"]), signal["detail"])
