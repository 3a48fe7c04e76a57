"""Acts of members about members: decisions over the rows that an engine reads in its transaction. No I/O.

See docs/spec/lifecycle.md, Leaving and revoking.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from msgspec import Struct

from claudemesh.broker.store.types import Member
from claudemesh.protocol.authority import NOT_AUTHORIZED, Refusal, judge_leave, judge_revocation, judge_role
from claudemesh.protocol.statements import REVOCATION, Statement
from claudemesh.protocol.wire import Role

NOT_A_MEMBER = Refusal("not_a_member", "The caller is not an active member of this mesh.")
NAME_TAKEN = Refusal("name_taken", "Another member has this name. Choose another one.")
_NO_SUBJECT = Refusal("not_found", "This mesh has no such member. Give a name, a key or a member id.")
_GONE = Refusal("not_found", "This member is not active any more, so its role is not changed.")
_OF_ANOTHER = Refusal(NOT_AUTHORIZED, "The statement is not signed by the present key of the caller.")
_OTHER_KEY = Refusal("not_found", "The key of the statement is not one of this member's keys.")
_OUTDATED = Refusal(
    "statement_outdated",
    "A later statement gives this member another role. Look at `claudemesh member list`, then try again.",
)


class Acted(Struct, frozen=True):
    """An act of a member about a member: the subject before and after it.

    `has_changed` is False when an earlier try had done it.
    """

    before: Member
    member: Member
    has_changed: bool = True


class Parties(Struct, frozen=True):
    """The members of an act. None: there is no such active caller, or no such subject.

    `other_owners` counts the active owners besides the subject.
    """

    by: Member | None
    subject: Member | None
    other_owners: int

    @classmethod
    def of(cls, rows: Sequence[Member], by_id: str, subject_id: str) -> Parties:
        """Return the parties among the rows of the query `acting`."""
        by_member = {one.id: one for one in rows}
        by = by_member.get(by_id)
        owners = [one for one in rows if one.role == "owner" and one.status == "active"]
        return cls(
            by if by is not None and by.status == "active" else None,
            by_member.get(subject_id),
            sum(one.id != subject_id for one in owners),
        )

    def may_leave(self, *, force: bool) -> Refusal | None:
        """Decide whether the subject, which is the caller, leaves."""
        if self.by is None:
            return NOT_A_MEMBER
        return judge_leave(self.by.role, other_owners=self.other_owners, force=force)

    def may_revoke(self, statement: Statement, *, force: bool) -> Refusal | None:
        """Decide a revocation. One that has been done before is allowed again."""
        refusal = self._may_sign(statement)
        if refusal is not None or self.by is None or self.subject is None:
            return refusal or _NO_SUBJECT
        subject = self.subject
        if statement.detail("pubkey") not in (subject.ed25519_pubkey, *subject.earlier_pubkeys):
            return _OTHER_KEY
        others = self.other_owners if subject.status == "active" else 1
        return judge_revocation(self.by.role, subject.role, other_owners=others, force=force)

    def may_give_role(self, statement: Statement, before_ms: int | None, *, force: bool) -> Refusal | None:
        """Decide a change of a role; `before_ms` is the time of the statement that counts now."""
        refusal = self._may_sign(statement)
        if refusal is not None or self.by is None or self.subject is None:
            return refusal or _NO_SUBJECT
        if self.subject.status != "active":
            return _GONE
        to = role_of(statement)
        refusal = judge_role(self.by.role, self.subject.role, to, other_owners=self.other_owners, force=force)
        if refusal is None and to != self.subject.role and before_ms is not None:
            return _OUTDATED if statement.at_ms <= before_ms else None
        return refusal

    def _may_sign(self, statement: Statement) -> Refusal | None:
        if self.by is None:
            return NOT_A_MEMBER
        return None if statement.signer == self.by.ed25519_pubkey else _OF_ANOTHER


def revocation_of(member: Member) -> str | None:
    """Return the latest revocation among the statements that a member's entry carries, as JSON."""
    revocations = (one for one in member.statements if orjson.loads(one)["kind"] == REVOCATION)
    return next(revocations, None)


def role_of(statement: Statement) -> Role:
    """Return the role that a statement gives. Its form was checked when it was parsed."""
    roles: dict[str, Role] = {"owner": "owner", "admin": "admin", "member": "member"}
    return roles[statement.detail("role")]
