"""`member_restate`: an owner or admin passes a statement on that a restore of the database has lost.

The signature of the statement decides, not the caller: its signer has to be active still, with a role that
covers the act. See docs/spec/broker.md, After a restore.
"""

from __future__ import annotations

from claudemesh.broker.calls.acts import gave_role, revoked, verified_statement
from claudemesh.broker.calls.base import Answer, Caller, Method, Params, only
from claudemesh.protocol.authority import judge_administration
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.statements import REVOCATION, ROLE


async def restate(caller: Caller, params: Params) -> Answer:
    """Put a revocation or a role in force again. One that is in force changes nothing."""
    only(params, "statement")
    statement = verified_statement(caller, params, REVOCATION, ROLE)
    members = caller.context.store.members
    own = await members.find(caller.mesh_id, caller.member_id)
    if own is None or own.status != "active":
        raise ProtocolError("not_a_member", "The caller is not an active member of this mesh.")
    refusal = judge_administration(own.role)
    if refusal is not None:
        raise refusal.error()
    signer = await members.by_key(caller.mesh_id, statement.signer)
    if signer is None:
        raise ProtocolError("not_authorized", "The signer of the statement is not a member of this mesh.")
    act = revoked if statement.kind == REVOCATION else gave_role
    return await act(caller, statement, signer.id, force=False, restated_by=caller.member_id)


METHODS: dict[str, Method] = {"member_restate": restate}
