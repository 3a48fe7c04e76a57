"""Decisions of a handshake: the address, the signed transcript, the offer of features. No I/O."""

from __future__ import annotations

from typing import Any, NamedTuple

from claudemesh.broker.addresses import Addresses, Arrival
from claudemesh.broker.settings import BrokerSettings
from claudemesh.broker.store.types import Member, Mesh
from claudemesh.broker.ws.frame_socket import Closing
from claudemesh.protocol import errors
from claudemesh.protocol.errors import CloseCode
from claudemesh.protocol.features import broker_offer
from claudemesh.protocol.frames import Hello
from claudemesh.protocol.signing import verify_hello
from claudemesh.protocol.topic_keys import DEFAULT_KEY_EPOCHS


class HandshakeRefusal(NamedTuple):
    """The reason for closing a connection: a close code, and text for the log."""

    code: CloseCode
    detail: str
    kind: str | None = None


# The same words for an unknown mesh and an unknown key: a stranger learns neither.
NOT_A_MEMBER = HandshakeRefusal(
    CloseCode.UNAUTHENTICATED, "No member of this mesh has this key.", errors.NOT_A_MEMBER
)

KEY_ROTATED_OUT = HandshakeRefusal(
    CloseCode.UNAUTHENTICATED, "The member has rotated its keys.", errors.KEY_ROTATED_OUT
)


def refuse_if(refusal: HandshakeRefusal | None) -> None:
    """Raise `Closing` for a refusal."""
    if refusal is not None:
        raise Closing(*refusal)


def check_hello(
    hello: Hello, nonce: bytes, addresses: Addresses, arrived: Arrival
) -> HandshakeRefusal | None:
    """Return the refusal of a hello. None: it was signed for this broker and this challenge."""
    if not addresses.accepts(hello.audience, arrived):
        known = " ".join(addresses.shown(arrived))
        return HandshakeRefusal(CloseCode.UNAUTHENTICATED, known, errors.WRONG_ADDRESS)
    proven = verify_hello(
        hello.pubkey,
        audience=hello.audience,
        mesh_id=hello.mesh_id,
        nonce=nonce,
        instance_id=hello.instance_id,
        signature=hello.signature,
    )
    return (
        None
        if proven
        else HandshakeRefusal(CloseCode.UNAUTHENTICATED, "The signature does not match the hello.")
    )


def check_member(hello: Hello, member: Member) -> HandshakeRefusal | None:
    """Return the refusal of a member, or None. A rotated-out key authenticates no member."""
    if member.status == "revoked":
        return HandshakeRefusal(CloseCode.REVOKED, "This member was revoked.")
    if member.ed25519_pubkey != hello.pubkey:
        return KEY_ROTATED_OUT
    if member.status != "active":
        return HandshakeRefusal(CloseCode.UNAUTHENTICATED, "This member has left the mesh.", errors.LEFT)
    return None


def mesh_summary(mesh: Mesh) -> dict[str, object]:
    """Return the mesh as `hello_ack` describes it."""
    return {
        "id": mesh.id,
        "slug": mesh.slug,
        "clone_concurrency_policy": mesh.clone_concurrency_policy,
        "message_retention_days": mesh.message_retention_days,
    }


def offer(mesh: Mesh, settings: BrokerSettings) -> dict[str, Any]:
    """Return the features that this broker supports for a mesh, with their parameters."""
    return broker_offer(
        mode=mesh.dedupe_retention_mode,
        retention_days=mesh.dedupe_retention_days,
        inline_bytes=settings.inline_bytes,
        blob_bytes=settings.blob_bytes,
        policy=mesh.clone_concurrency_policy,
        key_epochs=DEFAULT_KEY_EPOCHS,
    )
