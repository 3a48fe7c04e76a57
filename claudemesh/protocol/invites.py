"""Invite links, signed by the inviter. They hold no secret (docs/spec/lifecycle.md, Joining)."""

from __future__ import annotations

import json
import re
import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import orjson

from claudemesh.protocol import invite_codes
from claudemesh.protocol.base64 import from_base64, to_base64
from claudemesh.protocol.broker_urls import check_broker_url
from claudemesh.protocol.canonical import canonical_json, parse_json
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.fields import MAX_TIME_MS
from claudemesh.protocol.ids import check_key, check_member_name, check_slug, check_ulid, check_uuid
from claudemesh.protocol.keys import SIGNATURE_BYTES, Identity
from claudemesh.protocol.signing import sign_request, verify_request
from claudemesh.protocol.statements import REPLACEMENT, Statement
from claudemesh.protocol.wire import ROLES, Role

LINK_PREFIX: Final = "claudemesh://join/"
MAX_LINK_CHARACTERS: Final = 4096
# A link with line ends, quotation marks and words of a mail around it.
MAX_PASTED_CHARACTERS: Final = 65_536
MAX_USES: Final = 10_000

_CODE = "invalid_invite"
_PURPOSE = "invite"
_INTRODUCTION = "invite-introduction"
_PAYLOAD: Final = re.compile(r"[A-Za-z0-9_-]+")
_PASTED: Final = re.compile(rf"{LINK_PREFIX}([A-Za-z0-9_-]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Introduction:
    """The name and member id of the inviter, which the joiner pins together with its key.

    It has a signature of its own, so that versions that do not know it can still verify the link.
    """

    name: str
    member_id: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Invite:
    """The right to join a mesh `uses` times with one role until `expires_at_ms` (Unix milliseconds).

    With `ephemeral_only` it admits ephemeral members only, with `name` a member of this name only, which by
    `replacement` takes the name over from another one. Each of these fields is part of the link only when it
    is given, so that links without it have the signature that earlier versions verify.
    """

    broker_url: str
    mesh_id: str
    slug: str
    invite_id: str
    role: Role
    expires_at_ms: int
    uses: int
    inviter_pubkey: str
    signature: bytes
    introduction: Introduction | None = None
    ephemeral_only: bool = False
    name: str | None = None
    replacement: Statement | None = None

    def to_link(self) -> str:
        """Return the link."""
        fields = {**_signed_fields(self), "signature": to_base64(self.signature)}
        if self.introduction is not None:
            fields["introduction"] = {
                **asdict(self.introduction),
                "signature": to_base64(self.introduction.signature),
            }
        return _link_of(orjson.dumps(fields))

    def verify(self) -> bool:
        """Tell whether the signatures are the inviter's. The broker decides whether it may invite."""
        if self.replacement is not None and not self._replaces():
            return False
        signed = [(_PURPOSE, canonical_json(_signed_fields(self)), self.signature)]
        if self.introduction is not None:
            payload = _introduced(self.invite_id, self.introduction)
            signed.append((_INTRODUCTION, payload, self.introduction.signature))
        return all(
            verify_request(
                self.inviter_pubkey,
                purpose=purpose,
                mesh_id=self.mesh_id,
                payload=payload,
                signature=signature,
            )
            for purpose, payload, signature in signed
        )

    def _replaces(self) -> bool:
        """Tell whether the replacement is the inviter's, and for this invite and name."""
        one = self.replacement
        return (
            one is not None
            and self.name is not None
            and (one.kind, one.signer) == (REPLACEMENT, self.inviter_pubkey)
            and one.detail("invite_id") == self.invite_id
            and one.detail("name").lower() == self.name.lower()
            and one.verify(self.mesh_id)
        )


def sign_invite(
    identity: Identity,
    *,
    broker_url: str,
    mesh_id: str,
    slug: str,
    invite_id: str,
    role: str,
    expires_at_ms: int,
    uses: int,
    inviter: tuple[str, str] | None = None,
    ephemeral_only: bool = False,
    name: str | None = None,
    replacement: Statement | None = None,
) -> Invite:
    """Return an invite that `identity` has signed. `InvalidField` names the first wrong field.

    `inviter` is the name and the member id of the identity in the mesh.
    """
    fields = {
        "broker_url": broker_url,
        "mesh_id": mesh_id,
        "slug": slug,
        "invite_id": invite_id,
        "role": role,
        "expires_at_ms": expires_at_ms,
        "uses": uses,
        "inviter_pubkey": identity.ed25519_pubkey,
        **({"ephemeral_only": True} if ephemeral_only else {}),
        **({} if name is None else {"name": name}),
        **({} if replacement is None else {"replacement": replacement.to_dict()}),
    }
    unsigned = _checked(fields, b"")
    payload = canonical_json(_signed_fields(unsigned))
    signature = sign_request(identity, purpose=_PURPOSE, mesh_id=mesh_id, payload=payload)
    introduction = None if inviter is None else _introduce(identity, mesh_id, invite_id, *inviter)
    return replace(unsigned, signature=signature, introduction=introduction)


def _introduce(identity: Identity, mesh_id: str, invite_id: str, name: str, member_id: str) -> Introduction:
    unsigned = Introduction(check_member_name(name), check_uuid(member_id, "member_id"), b"")
    payload = _introduced(invite_id, unsigned)
    signature = sign_request(identity, purpose=_INTRODUCTION, mesh_id=mesh_id, payload=payload)
    return replace(unsigned, signature=signature)


def _link_of(payload: bytes) -> str:
    return LINK_PREFIX + urlsafe_b64encode(payload).rstrip(b"=").decode()


def code_of_link(link: str) -> str:
    """Return the short spelling of a link: upper-case letters, digits, `:` and `/`. `find_link` reads it."""
    payload = link.removeprefix(LINK_PREFIX)
    return LINK_PREFIX.upper() + invite_codes.encode(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def find_link(text: str) -> str:
    """Return the link in a pasted text, without what mail programs, chats and terminals add to it.

    A short spelling becomes the link that it stands for. Line ends, spaces, byte order marks, `<>`, quotation
    marks, a full stop and other words are left out. A text without a whole link is returned as it is, for
    `parse_link` to refuse.
    """
    joined = "".join(filter(_is_visible, text[:MAX_PASTED_CHARACTERS]))
    found = _PASTED.search(joined)
    if found is None:
        return text
    spelt = invite_codes.decode(found[1], MAX_LINK_CHARACTERS)
    if spelt is not None:
        return _link_of(spelt)
    payload = found[1][: _length_of_object(found[1][:MAX_LINK_CHARACTERS])]
    return LINK_PREFIX + payload


def _is_visible(character: str) -> bool:
    """Tell whether a character may be part of a link: no space, control or format character, mail mark."""
    return character not in ">=" and unicodedata.category(character) not in ("Cc", "Cf", "Zs", "Zl", "Zp")


def _length_of_object(payload: str) -> int:
    """Return how many characters hold the JSON object at the start; all of them when none is whole."""
    whole = payload[: len(payload) - (len(payload) % 4 == 1)]
    content = urlsafe_b64decode(whole + "=" * (-len(whole) % 4)).decode("latin-1")
    try:
        _, size = json.JSONDecoder().raw_decode(content)
    except (ValueError, RecursionError):
        return len(payload)
    return -(-size * 4 // 3)


def parse_link(text: str) -> Invite:
    """Read a link; white space around it is forgiven. Raise `ProtocolError` invalid_invite for any text
    that is not a link.

    The signature is not verified here: `Invite.verify`.
    """
    link = text.strip()
    payload = link.removeprefix(LINK_PREFIX)
    if len(link) > MAX_LINK_CHARACTERS or payload == link or _PAYLOAD.fullmatch(payload) is None:
        raise _invalid("It must begin with claudemesh://join/ and be copied whole.")
    try:
        value = parse_json(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, ProtocolError) as error:
        raise _invalid("The link is cut or changed. Copy it whole, to its last character.") from error
    try:
        return _from_json(value)
    except ProtocolError as error:
        raise _invalid(f"The link is changed. {error.message}") from error


def _from_json(value: Any) -> Invite:
    if not isinstance(value, dict):
        raise InvalidField(_CODE, "invite", "It is not a JSON object.")
    signature = from_base64(value.get("signature"))
    if signature is None or len(signature) != SIGNATURE_BYTES:
        raise InvalidField(_CODE, "signature", "Its signature is damaged.")
    return replace(_checked(value, signature), introduction=_introduction_of(value.get("introduction")))


def _introduction_of(value: Any) -> Introduction | None:
    if value is None:
        return None
    signature = from_base64(value.get("signature")) if isinstance(value, dict) else None
    if signature is None or len(signature) != SIGNATURE_BYTES:
        raise InvalidField(_CODE, "introduction", "Its introduction is damaged.")
    return Introduction(
        check_member_name(value.get("name")), check_uuid(value.get("member_id"), "member_id"), signature
    )


def _checked(value: dict[str, Any], signature: bytes) -> Invite:
    return Invite(
        broker_url=check_broker_url(value.get("broker_url"), "broker_url", _CODE),
        mesh_id=check_uuid(value.get("mesh_id"), "mesh_id"),
        slug=check_slug(value.get("slug")),
        invite_id=check_ulid(value.get("invite_id"), "invite_id"),
        role=_check_role(value.get("role")),
        expires_at_ms=_check_number(value.get("expires_at_ms"), "expires_at_ms", MAX_TIME_MS),
        uses=_check_number(value.get("uses"), "uses", MAX_USES),
        inviter_pubkey=check_key(value.get("inviter_pubkey"), "inviter_pubkey"),
        signature=signature,
        ephemeral_only=_check_true(value, "ephemeral_only"),
        name=check_member_name(value["name"]) if "name" in value else None,
        replacement=Statement.parse(value["replacement"]) if "replacement" in value else None,
    )


def _check_true(value: dict[str, Any], field: str) -> bool:
    if value.get(field, True) is not True:
        raise InvalidField(_CODE, field, f"{field} must be true where it is given.")
    return field in value


def _check_role(value: object) -> Role:
    if not isinstance(value, str) or value not in ROLES:
        raise InvalidField(_CODE, "role", f"role must be one of {', '.join(ROLES)}.")
    return value


def _check_number(value: object, field: str, limit: int) -> int:
    if type(value) is not int or not 0 < value <= limit:
        raise InvalidField(_CODE, field, f"{field} must be a whole number from 1 to {limit}.")
    return value


def _signed_fields(invite: Invite) -> dict[str, Any]:
    fields = asdict(invite)
    del fields["signature"], fields["introduction"]
    if not invite.ephemeral_only:
        del fields["ephemeral_only"]
    if invite.name is None:
        del fields["name"]
    if invite.replacement is None:
        del fields["replacement"]
    else:
        fields["replacement"] = invite.replacement.to_dict()
    return fields


def _introduced(invite_id: str, introduction: Introduction) -> bytes:
    fields = {"invite_id": invite_id, "name": introduction.name, "member_id": introduction.member_id}
    return canonical_json(fields)


def _invalid(what: str) -> ProtocolError:
    return ProtocolError(_CODE, f"The invite is not usable. {what} Ask the inviter to send it again.")
