"""Authority of members over members: the decisions that brokers and daemons share.

A refusal is a code and a sentence. None means that the act is allowed (docs/spec/lifecycle.md, Leaving and
revoking).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.wire import ROLE_RANK, Role

NOT_AUTHORIZED: Final = "not_authorized"
LAST_OWNER: Final = "last_owner"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An act that is not allowed: its code, and the sentence for the member that tried it."""

    code: str
    message: str

    def error(self) -> ProtocolError:
        """Return the refusal as an error."""
        return ProtocolError(self.code, self.message)


_NOT_OVER_OWNERS = Refusal(
    NOT_AUTHORIZED, "An admin has no authority over an owner. An owner of the mesh can do this."
)
_NOT_A_MEMBERS_RIGHT = Refusal(
    NOT_AUTHORIZED, "The role member does not allow this. An owner or an admin of the mesh can do this."
)
_NOT_TO_OWNER = Refusal(
    NOT_AUTHORIZED, "An admin cannot make a member an owner. An owner of the mesh can do this."
)


def judge_revocation(by: Role, of: Role, *, other_owners: int, force: bool = False) -> Refusal | None:
    """Decide whether a member may revoke another one; `other_owners` are the owners besides the subject."""
    return _over(by, of) or _last_owner(of, other_owners, force, "revoked")


def judge_administration(by: Role) -> Refusal | None:
    """Decide whether a member may list and revoke the invites of its mesh."""
    return _NOT_A_MEMBERS_RIGHT if by == "member" else None


def judge_role(by: Role, of: Role, to: Role, *, other_owners: int, force: bool = False) -> Refusal | None:
    """Decide whether a member may change the role of a member from `of` to `to`."""
    refusal = _over(by, of)
    if refusal is None and ROLE_RANK[to] > ROLE_RANK[by]:
        refusal = _NOT_TO_OWNER
    if refusal is None and to != "owner":
        refusal = _last_owner(of, other_owners, force, "given another role")
    return refusal


def judge_leave(role: Role, *, other_owners: int, force: bool = False) -> Refusal | None:
    """Decide whether a member may leave the mesh."""
    if role == "owner" and other_owners == 0 and not force:
        return Refusal(
            LAST_OWNER,
            "This member is the last owner of the mesh. Without an owner, only the operator of the broker "
            "can revoke admins. Make another member an owner first (`claudemesh member role NAME owner`), "
            "or leave with --force.",
        )
    return None


def may_state(signer: str, subject: str, to: str | None = None) -> bool:
    """Tell whether a member of one role may make a statement about a member of another one.

    `to` is the role that the statement gives. The number of owners is not regarded: the broker has done that.
    """
    if signer not in ROLE_RANK or subject not in ROLE_RANK or (to is not None and to not in ROLE_RANK):
        return False
    rank = ROLE_RANK
    if rank[signer] < rank["admin"] or rank[signer] < rank[subject]:
        return False
    return to is None or rank[to] <= rank[signer]


def _over(by: Role, of: Role) -> Refusal | None:
    if may_state(by, of):
        return None
    return _NOT_A_MEMBERS_RIGHT if by == "member" else _NOT_OVER_OWNERS


def _last_owner(of: Role, other_owners: int, force: bool, what: str) -> Refusal | None:
    if of != "owner" or other_owners > 0 or force:
        return None
    return Refusal(
        LAST_OWNER,
        f"The last owner of a mesh cannot be {what}: without an owner, only the operator of the broker can "
        "revoke admins. Make another member an owner first, or add --force.",
    )
