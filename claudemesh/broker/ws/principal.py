"""The principal of a connection: the member that its handshake has authenticated."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from claudemesh.broker.calls.base import Caller
from claudemesh.broker.connections.outbound import OutboundQueue
from claudemesh.broker.context import Context
from claudemesh.broker.mesh_policies import allowance_of
from claudemesh.broker.messages.delivery import Delivery
from claudemesh.broker.messages.sender import Sender
from claudemesh.broker.store.types import Member, Mesh
from claudemesh.protocol.frames import Hello
from claudemesh.protocol.ids import ulid_time_ms
from claudemesh.protocol.session import Session
from claudemesh.runtime.clock import iso_ms


class Principal(Struct, frozen=True, kw_only=True):
    """Everything that a connection is authorised by. No later frame changes it."""

    mesh: Mesh
    member: Member
    instance_id: str
    host: bytes | None
    connection_id: str
    sender: Sender
    caller: Caller
    delivery: Delivery

    @classmethod
    def of(
        cls,
        context: Context,
        outbound: OutboundQueue,
        session: Session,
        *,
        mesh: Mesh,
        member: Member,
        hello: Hello,
    ) -> Principal:
        """Return the principal of a new connection; its deliveries have not begun."""
        delivery = Delivery(
            store=context.store.messages,
            acks=context.acks,
            outbound=outbound,
            session=session,
            env=context.env,
            mesh_id=mesh.id,
            member_id=member.id,
        )
        connection_id = context.mint()
        return cls(
            mesh=mesh,
            member=member,
            instance_id=hello.instance_id,
            host=bytes.fromhex(hello.host_fingerprint) or None,
            connection_id=connection_id,
            sender=Sender(
                mesh.id,
                member.id,
                member.name,
                member.ed25519_pubkey,
                allowance_of(mesh),
                member.earlier_pubkeys,
            ),
            caller=Caller(context, mesh.id, member.id, connection_id),
            delivery=delivery,
        )

    def with_keys(self, member: Member) -> Principal:
        """Return the principal after a rotation of the member's keys."""
        sender = replace(self.sender, pubkey=member.ed25519_pubkey, earlier_pubkeys=member.earlier_pubkeys)
        return replace(self, member=member, sender=sender)

    def account(self) -> dict[str, object]:
        """Return what operators see of the connection: its member, its age, and deliveries without an ack."""
        return {
            "connection_id": self.connection_id,
            "member_id": self.member.id,
            "name": self.member.name,
            "instance_id": self.instance_id,
            # A connection gets its id when it is admitted.
            "connected_at": iso_ms(ulid_time_ms(self.connection_id)),
            "unacknowledged": self.delivery.flow.unacked,
        }

    def card(self) -> dict[str, object]:
        """Return the member's entry in events about it."""
        return {
            "name": self.member.name,
            "member_id": self.member.id,
            "pubkey": self.member.ed25519_pubkey,
        }
