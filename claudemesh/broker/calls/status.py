"""The call `send_status`: the outcomes of a member's own sends."""

from __future__ import annotations

from claudemesh.broker.calls.base import Answer, Caller, Method, Params, only
from claudemesh.broker.store.types import DedupeRow, SendKey
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.ids import check_client_message_id


async def send_status(caller: Caller, params: Params) -> Answer:
    """Return for each of the caller's client_message_ids whether it was accepted, and as which message."""
    only(params, "client_message_ids")
    given = params.get("client_message_ids")
    limit = caller.context.settings.limits.status_ids
    if not isinstance(given, list) or len(given) > limit:
        raise InvalidField(
            "invalid_params",
            "client_message_ids",
            f"client_message_ids must be a list of at most {limit}.",
        )
    keys = {
        SendKey(caller.mesh_id, caller.member_id, check_client_message_id(value)): value for value in given
    }
    # Wait for commits under way: an id reported as unknown may be sent again under a new id.
    await caller.context.acceptor.barrier(caller.member_id)
    found = await caller.context.store.messages.lookup(keys.keys())
    return {"items": {value: _known(found.get(key)) for key, value in keys.items()}}


def _known(row: DedupeRow | None) -> Answer:
    if row is None:
        return {"known": False, "broker_message_id": None, "history_id": None, "request_fingerprint": None}
    return {
        "known": True,
        "broker_message_id": row.broker_message_id,
        "history_id": row.history_id,
        "request_fingerprint": row.request_fingerprint.hex(),
    }


METHODS: dict[str, Method] = {"send_status": send_status}
