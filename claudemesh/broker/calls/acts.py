"""Calls by which members act on members: rename, leave, revoke, and change of a role.

See docs/spec/lifecycle.md, Names, and Leaving and revoking. A revocation and a change of a role are
statements that the caller has signed, so that peers can check them without trust in the broker.
"""

from __future__ import annotations

import asyncio

from claudemesh.broker.calls.base import Answer, Caller, Method, Params, flag, only
from claudemesh.broker.revoking import tell_revoked
from claudemesh.broker.store.acts import Acted
from claudemesh.protocol.authority import Refusal
from claudemesh.protocol.errors import CloseCode, InvalidField, ProtocolError
from claudemesh.protocol.events import MEMBER_RENAMED
from claudemesh.protocol.ids import check_member_name
from claudemesh.protocol.statements import REVOCATION, ROLE, Statement

# A statement may be ahead of the broker's clock by this much. Later ones would count for ever.
_AHEAD_MS = 86_400_000


async def rename(caller: Caller, params: Params) -> Answer:
    """Give the caller another name, if no active member has it."""
    only(params, "name")
    name = check_member_name(params.get("name"))
    context, mesh_id = caller.context, caller.mesh_id
    acted = _done(await context.store.acts.rename(mesh_id, caller.member_id, name))
    if acted.has_changed:
        before, member = acted.before, acted.member
        context.audit.record(mesh_id, "member_renamed", member.id, old_name=before.name, name=name)
        context.feed.publish(mesh_id)
        told = {
            "member_id": member.id,
            "name": name,
            "old_name": before.name,
            "pubkey": member.ed25519_pubkey,
        }
        context.cluster.broadcast(mesh_id, MEMBER_RENAMED, told)
    return {"member_id": caller.member_id, "name": name}


async def leave(caller: Caller, params: Params) -> Answer:
    """Let the caller leave the mesh for good. Its name is free, its key is refused from then on.

    Its connections are closed once the answer is on its way.
    """
    only(params, "force")
    context, mesh_id = caller.context, caller.mesh_id
    acted = _done(await context.store.acts.leave(mesh_id, caller.member_id, force=flag(params, "force")))
    context.audit.record(mesh_id, "member_left", caller.member_id, name=acted.before.name)
    context.feed.publish(mesh_id)
    context.keys.departed(mesh_id, caller.member_id)
    # The answer is put into the outbound queue before the next turn of the event loop.
    asyncio.get_running_loop().call_soon(
        context.cluster.disconnect,
        mesh_id,
        caller.member_id,
        CloseCode.UNAUTHENTICATED,
        "This member has left the mesh.",
    )
    return {"member_id": caller.member_id, "name": acted.before.name}


async def revoke(caller: Caller, params: Params) -> Answer:
    """Revoke the member that a statement names. Its key is refused at once, its messages stay."""
    statement, force = _statement(caller, params, REVOCATION)
    return await revoked(caller, statement, caller.member_id, force=force)


async def revoked(caller: Caller, statement: Statement, by_id: str, *, force: bool, **audited: str) -> Answer:
    """Put a revocation by the member `by_id` in force, and tell the mesh. `audited` goes to the audit."""
    context = caller.context
    acted = _done(await context.store.acts.revoke(statement, by_id, force=force))
    if acted.has_changed:
        context.audit.record(
            caller.mesh_id, "member_revoked", acted.member.id, by=by_id, at=statement.at_ms, **audited
        )
    if acted.member.id == caller.member_id:
        # The answer is put into the outbound queue before the next turn of the event loop.
        asyncio.get_running_loop().call_soon(tell_revoked, context, acted.member, statement)
    else:
        tell_revoked(context, acted.member, statement)
    return {"member_id": acted.member.id, "name": acted.member.name, "changed": acted.has_changed}


async def give_role(caller: Caller, params: Params) -> Answer:
    """Give the member that a statement names another role."""
    statement, force = _statement(caller, params, ROLE)
    return await gave_role(caller, statement, caller.member_id, force=force)


async def gave_role(
    caller: Caller, statement: Statement, by_id: str, *, force: bool, **audited: str
) -> Answer:
    """Put a role that the member `by_id` gives in force, and tell the mesh. `audited` goes to the audit."""
    context = caller.context
    acted = _done(await context.store.acts.give_role(statement, by_id, force=force))
    if acted.has_changed:
        context.audit.record(
            caller.mesh_id,
            "member_role_changed",
            acted.member.id,
            by=by_id,
            old_role=acted.before.role,
            role=acted.member.role,
            **audited,
        )
        context.feed.publish(caller.mesh_id)
    return {"member_id": acted.member.id, "name": acted.member.name, "changed": acted.has_changed}


def _statement(caller: Caller, params: Params, kind: str) -> tuple[Statement, bool]:
    """Return a verified statement of the parameters, and `force`. `ProtocolError` for any other one."""
    only(params, "statement", "force")
    return verified_statement(caller, params, kind), flag(params, "force")


def verified_statement(caller: Caller, params: Params, *kinds: str) -> Statement:
    """Return the statement of the parameters, of one of some kinds. `ProtocolError` for any other one."""
    statement = Statement.parse(params.get("statement"))
    if statement.kind not in kinds:
        raise InvalidField(
            "invalid_statement", "kind", f"This method takes statements of the kind {' or '.join(kinds)}."
        )
    if not statement.verify(caller.mesh_id):
        raise ProtocolError("bad_signature", "The statement is not signed by its signer for this mesh.")
    if statement.at_ms > caller.context.clock.wall_ms() + _AHEAD_MS:
        raise InvalidField(
            "invalid_statement",
            "at_ms",
            "The statement is more than a day ahead of the broker's clock. Correct the clock of this host, "
            "or have the broker's corrected.",
        )
    return statement


def _done(outcome: Acted | Refusal) -> Acted:
    if isinstance(outcome, Refusal):
        raise outcome.error()
    return outcome


METHODS: dict[str, Method] = {
    "member_rename": rename,
    "leave": leave,
    "member_revoke": revoke,
    "member_role": give_role,
}
