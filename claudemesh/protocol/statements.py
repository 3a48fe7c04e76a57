"""Statements of members about members and their mesh, signed (docs/spec/protocol.md, Statements).

A statement names the mesh, its kind, its subject, the time, and the key of its signer. The signature covers
the canonical form of all of them, so it is valid for no other mesh, kind or subject. A statement shows that
the signer has said something; the reader decides whether the signer may say it (protocol/authority.py).

Statements of one kind about one subject are ordered by their time. The later one counts, so an older one that
is shown again has no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from claudemesh.protocol.base64 import from_base64, to_base64
from claudemesh.protocol.broker_urls import check_broker_url
from claudemesh.protocol.canonical import canonical_json
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.fields import MAX_TIME_MS
from claudemesh.protocol.ids import check_key, check_member_name, check_ulid, check_uuid
from claudemesh.protocol.keys import SIGNATURE_BYTES, Identity
from claudemesh.protocol.signing import sign_request, verify_request
from claudemesh.protocol.wire import ROLES

REVOCATION: Final = "revocation"
ROLE: Final = "role"
REPLACEMENT: Final = "replacement"
MOVE: Final = "move"
# Statements that a list carries for one member.
MAX_STATEMENTS: Final = 32

_CODE: Final = "invalid_statement"
_PURPOSE: Final = "statement"
_VERSION: Final = 1

Check = Callable[[object], str]


@dataclass(frozen=True, slots=True)
class Kind:
    """The form of one kind of statement: a check of its subject, and of each of its details."""

    subject: Check
    details: Mapping[str, Check]


def _role(value: object) -> str:
    if not isinstance(value, str) or value not in ROLES:
        raise InvalidField(_CODE, "role", f"role must be one of {', '.join(ROLES)}.")
    return value


def _member_id(value: object) -> str:
    return check_uuid(value, "subject")


KINDS: Final[Mapping[str, Kind]] = {
    # The member `subject`, whose key is `pubkey`, is not a member any more.
    REVOCATION: Kind(_member_id, {"pubkey": lambda value: check_key(value, "pubkey")}),
    # The member `subject` has the role `role`.
    ROLE: Kind(_member_id, {"role": _role}),
    # The member that joins by the invite `invite_id` takes the name `name` over from the member `subject`.
    REPLACEMENT: Kind(
        _member_id, {"name": check_member_name, "invite_id": lambda value: check_ulid(value, "invite_id")}
    ),
    # The mesh `subject` is dialled at the URL `to`; its signer dialled it at `from` before.
    MOVE: Kind(
        _member_id,
        {
            "from": lambda value: check_broker_url(value, "from", _CODE),
            "to": lambda value: check_broker_url(value, "to", _CODE),
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement. `details` holds the texts that its kind has besides the subject, by name."""

    mesh_id: str
    kind: str
    subject: str
    at_ms: int
    signer: str
    details: tuple[tuple[str, str], ...]
    signature: bytes

    @classmethod
    def parse(cls, value: object) -> Statement:
        """Return the statement of a JSON value, not verified yet. `InvalidField` invalid_statement."""
        if not isinstance(value, Mapping):
            raise InvalidField(_CODE, "statement", "A statement must be a JSON object.")
        signature = from_base64(value.get("signature"))
        if signature is None or len(signature) != SIGNATURE_BYTES:
            raise InvalidField(_CODE, "signature", f"signature must be {SIGNATURE_BYTES} bytes in base64.")
        if type(value.get("v")) is not int or value["v"] != _VERSION:
            raise InvalidField(_CODE, "v", f"v must be {_VERSION}.")
        return cls(**_checked(value), signature=signature)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the statement."""
        return {**_signed(self), "signature": to_base64(self.signature)}

    def detail(self, name: str) -> str:
        """Return one of the details."""
        return dict(self.details)[name]

    def verify(self, mesh_id: str) -> bool:
        """Tell whether its signer has signed this statement, and for this mesh."""
        return self.mesh_id == mesh_id and _is_signed(self)


def sign_statement(
    identity: Identity, kind: str, *, mesh_id: str, subject: str, at_ms: int, **details: str
) -> Statement:
    """Return a statement that `identity` has signed. `InvalidField` names the first wrong field."""
    fields = {"mesh_id": mesh_id, "kind": kind, "subject": subject, "at_ms": at_ms, "details": details}
    unsigned = Statement(**_checked({**fields, "signer": identity.ed25519_pubkey}), signature=b"")
    signature = sign_request(
        identity, purpose=_PURPOSE, mesh_id=mesh_id, payload=canonical_json(_signed(unsigned))
    )
    return Statement(**{**_fields(unsigned), "signature": signature})


def newest(statements: Iterable[Statement], kind: str, subject: str) -> Statement | None:
    """Return the latest statement of a kind about a subject, None when there is none."""
    found = [one for one in statements if (one.kind, one.subject) == (kind, subject)]
    return max(found, key=lambda one: (one.at_ms, one.signature), default=None)


# A list is judged again when it changes. So what was found out is kept for a while.
@lru_cache(maxsize=4096)
def _is_signed(statement: Statement) -> bool:
    return verify_request(
        statement.signer,
        purpose=_PURPOSE,
        mesh_id=statement.mesh_id,
        payload=canonical_json(_signed(statement)),
        signature=statement.signature,
    )


def _checked(value: Mapping[str, Any]) -> dict[str, Any]:
    kind = KINDS.get(value["kind"]) if isinstance(value.get("kind"), str) else None
    if kind is None:
        raise InvalidField(_CODE, "kind", f"kind must be one of {', '.join(KINDS)}.")
    at_ms, details = value.get("at_ms"), value.get("details")
    if type(at_ms) is not int or not 0 <= at_ms <= MAX_TIME_MS:
        raise InvalidField(_CODE, "at_ms", "at_ms must be Unix milliseconds, not after the year 9999.")
    if not isinstance(details, Mapping) or set(details) != set(kind.details):
        raise InvalidField(_CODE, "details", f"details must hold {', '.join(kind.details)} and nothing else.")
    return {
        "mesh_id": check_uuid(value.get("mesh_id"), "mesh_id"),
        "kind": value["kind"],
        "subject": kind.subject(value.get("subject")),
        "at_ms": at_ms,
        "signer": check_key(value.get("signer"), "signer"),
        "details": tuple((name, check(details[name])) for name, check in sorted(kind.details.items())),
    }


def _fields(statement: Statement) -> dict[str, Any]:
    return {
        "mesh_id": statement.mesh_id,
        "kind": statement.kind,
        "subject": statement.subject,
        "at_ms": statement.at_ms,
        "signer": statement.signer,
        "details": statement.details,
    }


def _signed(statement: Statement) -> dict[str, Any]:
    return {**_fields(statement), "v": _VERSION, "details": dict(statement.details)}
