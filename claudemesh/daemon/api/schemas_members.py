"""JSON of the routes of members: acts, names, and profiles."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from claudemesh.daemon.api.schemas import Body, Moment, Ulid

Named = Annotated[str, Meta(min_length=1, max_length=64, description="A name, a key or a member id")]
MemberName = Annotated[str, Meta(min_length=1, max_length=63)]


class MemberItem(Struct):
    """A member that has not left. `status` is `active` or `revoked`; `revoked_by` is a key."""

    name: str
    pubkey: str
    member_id: str
    role: str
    status: str
    online: bool
    ephemeral: bool
    revoked_by: str | None
    last_seen_at: Moment | None


class MemberPage(Struct):
    """Members by name; pass `next` as `after` to get the next page."""

    items: list[MemberItem]
    next: str | None


class RevokeBody(Body):
    """The member to revoke. `force` allows the last owner."""

    member: Named
    force: bool = False


class RoleBody(Body):
    """The member, and its role from now on. `force` allows a mesh without an owner."""

    member: Named
    role: Literal["owner", "admin", "member"]
    force: bool = False


class RenameBody(Body):
    """The name of this member from now on."""

    name: MemberName


class AcceptBody(Body):
    """The name that another member has taken."""

    name: MemberName


class ReplacementBody(Body):
    """The name that the member which joins by the invite takes over."""

    name: MemberName
    invite_id: Ulid


class Stated(Struct):
    """A signed statement, as the protocol has it."""

    statement: dict[str, Any]


class LeaveBody(Body):
    """`force` lets the last owner leave."""

    force: bool = False


class MemberChanged(Struct):
    """The member of an act, as it was named before."""

    name: str
    member_id: str
    pubkey: str


class Left(Struct):
    """The mesh that this host has left; its daemon ends."""

    mesh: str
    name: str
    status: str


class Profile(Struct):
    """This member's own profile, as the broker has last listed it."""

    name: str
    role: str
    summary: str | None
    status: str | None
    visible: bool
