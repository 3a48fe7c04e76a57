"""Bodies of the broker's HTTP routes: the fields that each accepts. Their values are checked by the handlers.

A handler gets the fields that were given as a dict (`given`), because each wrong value has a code of its own.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Struct

from claudemesh.broker.mesh_policies import POLICIES


class Body(Struct, forbid_unknown_fields=True):
    """Base of bodies: unknown fields are refused."""


class InviteBody(Body):
    """POST /v1/invites."""

    invite: Any = UNSET


class JoinBody(Body):
    """POST /v1/join. `member_id` is given by a member that a restore of the database has lost.

    `ttl_ms` bounds the life of an ephemeral member. `audience` is the address that was dialled, where that is
    not the invite's.
    """

    invite: Any = UNSET
    name: Any = UNSET
    ed25519_pubkey: Any = UNSET
    x25519_pubkey: Any = UNSET
    x25519_signature: Any = UNSET
    key_id: Any = UNSET
    ephemeral: Any = UNSET
    ttl_ms: Any = UNSET
    proof: Any = UNSET
    x25519_proof: Any = UNSET
    member_id: Any = UNSET
    audience: Any = UNSET


class RejoinBody(Body):
    """POST /v1/rejoin."""

    invite: Any = UNSET
    name: Any = UNSET
    member_id: Any = UNSET
    ed25519_pubkey: Any = UNSET
    x25519_pubkey: Any = UNSET
    x25519_signature: Any = UNSET
    key_id: Any = UNSET
    proof: Any = UNSET
    audience: Any = UNSET


class MoveBody(Body):
    """POST /v1/meshes/move; `statement` is a statement of the kind `move`."""

    statement: Any = UNSET


class RotateBody(Body):
    """POST /v1/rotate."""

    mesh_id: Any = UNSET
    rotations: Any = UNSET
    x25519_signature: Any = UNSET
    key_id: Any = UNSET
    proof: Any = UNSET
    x25519_proof: Any = UNSET


class MeshBody(Body):
    """POST /v1/admin/meshes; `owner` is an `OwnerBody`."""

    slug: Any = UNSET
    owner: Any = UNSET


class OwnerBody(Body):
    """The first member of a new mesh."""

    name: Any = UNSET
    ed25519_pubkey: Any = UNSET
    x25519_pubkey: Any = UNSET
    x25519_signature: Any = UNSET
    key_id: Any = UNSET


# POST /v1/admin/meshes/set: the mesh, and the policies to change.
PoliciesBody = msgspec.defstruct(
    "PoliciesBody", [(name, Any, UNSET) for name in ("mesh", *sorted(POLICIES))], bases=(Body,)
)


class MemberBody(Body):
    """POST /v1/admin/members/revoke."""

    mesh: Any = UNSET
    member: Any = UNSET


class InviteIdBody(Body):
    """POST /v1/admin/invites/revoke."""

    mesh: Any = UNSET
    invite_id: Any = UNSET


class NoBody(Body):
    """A request that acts and has no fields."""


class CodeBody(Body):
    """POST /v1/console/session."""

    code: Any = UNSET


class JobBody(Body):
    """POST /v1/admin/jobs/run."""

    job: Any = UNSET


def given(body: Struct) -> dict[str, Any]:
    """Return the fields of a body that were given, also those that are null."""
    fields = {name: getattr(body, name) for name in body.__struct_fields__}
    return {name: value for name, value in fields.items() if value is not UNSET}
