"""Admission: checks of an invite, keys and a name before a member is written.

The page is docs/spec/lifecycle.md, Joining.
"""

from __future__ import annotations

from collections.abc import Mapping

from claudemesh.broker.addresses import Addresses, Arrival
from claudemesh.broker.store.types import InviteRow, Member, Role
from claudemesh.protocol.base64 import from_base64
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.ids import KEY_ID, check_key, check_member_name, has_control, uuid_from_ulid
from claudemesh.protocol.invites import MAX_LINK_CHARACTERS, Invite, parse_link
from claudemesh.protocol.keys import verify_key_binding
from claudemesh.protocol.signing import verify_join
from claudemesh.protocol.wire import MAX_TTL_MS
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.urls import audience_of

_SIGNATURE_BYTES = 64


_SIGNATURE_CHARACTERS = 88


AUDIENCE_CHARACTERS = 300


_REFUSALS = {
    "invite_exhausted": "The invite has been used up. Ask the inviter for a new one.",
    "invite_revoked": "The invite was revoked. Ask an owner of the mesh for a new one.",
    "not_authorized": "The inviter may not invite with this role. Ask an owner of the mesh for an invite.",
    "name_taken": "Another member has this name. Choose another one with --name.",
    "key_taken": "One of these keys belongs to another member. Join with new keys.",
    "invite_for_another_name": "This invite is for another name. Join without --name.",
    "invite_ephemeral_only": "This invite admits ephemeral members only. Use `claudemesh run`.",
    "id_taken": "Another member has this member id. Remove membership.json and join as a new member.",
}


def expired(invite: Invite, now_ms: int) -> ProtocolError:
    """Return the error for an invite past its time. It tells the broker's time: that may be the fault."""
    text = (
        f"The invite expired at {iso_ms(invite.expires_at_ms)}, and the clock of this broker shows "
        f"{iso_ms(now_ms)}. Ask for a new invite, or have the clock corrected."
    )
    return ProtocolError("invite_expired", text)


def refusal(error: str) -> ProtocolError:
    """Return the error for a join that wrote nothing."""
    return ProtocolError(error, _REFUSALS.get(error, "The broker refused this join."))


def member_of(
    body: Mapping[str, object], *, mesh_id: str, role: Role, ephemeral: bool, fresh_id: str, now_ms: int
) -> Member:
    """Return a member with a body's name and keys; the x25519 key must be signed by the ed25519 key.

    `fresh_id` is a new ULID, `now_ms` the time of creation, which is shown.
    """
    name = check_member_name(body.get("name"))
    pubkey = check_key(body.get("ed25519_pubkey"), "ed25519_pubkey")
    x25519_pubkey = check_key(body.get("x25519_pubkey"), "x25519_pubkey")
    binding = signature_of(body.get("x25519_signature"), "x25519_signature")
    if not verify_key_binding(pubkey, x25519_pubkey, binding):
        raise ProtocolError(
            "bad_signature",
            "x25519_signature is not by ed25519_pubkey over x25519_pubkey. Sign the key that joins.",
        )
    return Member(
        id=uuid_from_ulid(fresh_id),
        mesh_id=mesh_id,
        name=name,
        role=role,
        status="active",
        ed25519_pubkey=pubkey,
        x25519_pubkey=x25519_pubkey,
        x25519_signature=binding,
        key_id=key_id_of(body.get("key_id")),
        ephemeral=ephemeral,
        created_at=now_ms,
    )


def life_of(body: Mapping[str, object], invite: Invite) -> tuple[bool, int | None]:
    """Return whether a member joins as ephemeral, and the bound of its life in milliseconds, if it has one.

    `ProtocolError` invite_ephemeral_only when the invite admits no persistent member.
    """
    ephemeral = body.get("ephemeral", False)
    if not isinstance(ephemeral, bool):
        raise InvalidField("invalid_ephemeral", "ephemeral", "ephemeral must be true or false.")
    ttl_ms = body.get("ttl_ms")
    if ttl_ms is not None and (type(ttl_ms) is not int or not 0 < ttl_ms <= MAX_TTL_MS or not ephemeral):
        raise InvalidField(
            "invalid_ttl_ms",
            "ttl_ms",
            "A lifetime (ttl_ms) is 1 ms to 30 days, and belongs to an ephemeral member.",
        )
    if invite.ephemeral_only and not ephemeral:
        raise refusal("invite_ephemeral_only")
    return ephemeral, ttl_ms


def key_id_of(value: object) -> str:
    """Return the id of a key. `InvalidField` when it is not one."""
    if not isinstance(value, str) or KEY_ID.fullmatch(value) is None:
        raise InvalidField("invalid_key_id", "key_id", "key_id must be k_ and a ULID.")
    return value


def verified_invite(body: Mapping[str, object]) -> Invite:
    """Return a body's invite. `ProtocolError` when its inviter did not sign it."""
    invite = parse_link(text_of(body.get("invite"), "invite", MAX_LINK_CHARACTERS))
    if not invite.verify():
        raise ProtocolError(
            "bad_signature", "The invite was changed after it was signed. Ask the inviter for a new one."
        )
    return invite


def dialled_of(body: Mapping[str, object]) -> str | None:
    """Return the address that a member dialled, None where it is that of the invite."""
    given = body.get("audience")
    return None if given is None else text_of(given, "audience", AUDIENCE_CHARACTERS)


def check_proof(
    invite: Invite,
    member: Member,
    proof: bytes,
    addresses: Addresses,
    arrived: Arrival,
    audience: str | None = None,
) -> None:
    """`ProtocolError` bad_signature unless the holder of the keys asked for this join, of this broker.

    `audience` is the address that was dialled, where that is not the invite's. wrong_address: it is not ours.
    """
    if audience is None:
        try:
            audience = audience_of(invite.broker_url)
        except ValueError as error:
            raise ProtocolError(
                "invalid_invite", "The invite names no broker. Ask the inviter for a new one."
            ) from error
    addresses.check(audience, arrived)
    proven = verify_join(
        member.ed25519_pubkey,
        member.x25519_pubkey,
        audience=audience,
        mesh_id=invite.mesh_id,
        invite_id=invite.invite_id,
        name=member.name,
        signature=proof,
    )
    if not proven:
        raise ProtocolError(
            "bad_signature",
            "The proof is not by ed25519_pubkey over this join. Sign this invite, name and address.",
        )


def invite_row(invite: Invite) -> InviteRow:
    """Return an invite as the store keeps it, from what was signed."""
    return InviteRow(
        id=invite.invite_id,
        mesh_id=invite.mesh_id,
        role=invite.role,
        created_by=invite.inviter_pubkey,
        expires_at=invite.expires_at_ms,
        max_uses=invite.uses,
    )


def signature_of(value: object, field: str) -> bytes:
    """Decode a base64 ed25519 signature. `InvalidField` when it is not one."""
    if isinstance(value, str) and len(value) <= _SIGNATURE_CHARACTERS:
        decoded = from_base64(value)
        if decoded is not None and len(decoded) == _SIGNATURE_BYTES:
            return decoded
    raise InvalidField("invalid_signature", field, f"{field} must be 64 bytes in base64.")


def text_of(value: object, field: str, limit: int) -> str:
    """Return a text of 1 to `limit` characters without control characters."""
    if not isinstance(value, str) or not 0 < len(value) <= limit or has_control(value):
        raise InvalidField(
            f"invalid_{field}",
            field,
            f"{field} must be a text of 1 to {limit} characters, none of them a control character.",
        )
    return value
