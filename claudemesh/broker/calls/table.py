"""The table of calls, and the conversion of their errors into replies."""

from __future__ import annotations

from collections.abc import Mapping

from claudemesh.broker.calls import (
    acts,
    blobs,
    deleting,
    history,
    invites,
    keys,
    moving,
    peers,
    restating,
    status,
    topic_keys,
    topics,
    vouching,
)
from claudemesh.broker.calls.base import Answer, Caller, Method, Params
from claudemesh.broker.messages.results import of_error
from claudemesh.protocol.errors import ProtocolError

METHODS: dict[str, Method] = (
    topics.METHODS
    | peers.METHODS
    | status.METHODS
    | restating.METHODS
    | vouching.METHODS
    | keys.METHODS
    | acts.METHODS
    | moving.METHODS
    | invites.METHODS
    | deleting.METHODS
    | topic_keys.METHODS
    | history.METHODS
    | blobs.METHODS
)

# Calls that may wait for their turn. The connection goes on meanwhile.
PACED = frozenset({"profile"})


async def answer(
    caller: Caller, method: str, params: Params
) -> tuple[Answer | None, Mapping[str, str] | None]:
    """Run a call and return (`ok`, None) or (None, `error`). Never raises."""
    try:
        function = METHODS.get(method)
        if function is None:
            raise ProtocolError("unknown_method", "This broker does not know the method. Upgrade the broker.")
        return await function(caller, params), None
    except ProtocolError as error:
        return None, {"code": error.code, "message": error.message}
    except Exception as error:
        # The same errors as for a send: an unknown outcome is not reported as a failure.
        fields = of_error(error).fields
        caller.context.degraded.failed("request", error)
        return None, {"code": str(fields["error"]), "message": str(fields["message"])}
