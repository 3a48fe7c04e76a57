"""Move route: an owner states that its mesh is dialled at another address.

The page is docs/spec/lifecycle.md, Moving a mesh.

The statement authenticates the request. Daemons verify it by the owner's key, which they have pinned, so this
broker cannot state a move by itself.
"""

from __future__ import annotations

from typing import Final

import orjson

from claudemesh.broker.context import Context
from claudemesh.broker.http.schemas import MoveBody, given
from claudemesh.broker.store.types import Member
from claudemesh.protocol.errors import WRONG_ADDRESS, InvalidField, ProtocolError
from claudemesh.protocol.events import MESH_MOVED
from claudemesh.protocol.statements import MOVE, Statement
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.urls import audience_of
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route

_FIELD: Final = "statement"
_AHEAD_MS: Final = 86_400_000


class MoveRoutes:
    """Handler of POST /v1/meshes/move."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def move(self, request: Request) -> Reply:
        """Keep a statement and let connected daemons know; 200, also for a repetition."""
        context, statement = self._context, Statement.parse(given(request.body).get(_FIELD))
        if statement.kind != MOVE or statement.subject != statement.mesh_id:
            raise InvalidField("invalid_statement", _FIELD, "The statement is not about a move of its mesh.")
        if not statement.verify(statement.mesh_id):
            raise ProtocolError("bad_signature", "The statement was changed after it was signed.")
        if statement.at_ms > context.clock.wall_ms() + _AHEAD_MS:
            raise InvalidField(
                "invalid_statement",
                "at_ms",
                "The statement is more than a day ahead of the broker's clock, and would outrank later ones. "
                "Correct the clock of this host, or have the broker's corrected.",
            )
        owner = await self._check(statement)
        text = orjson.dumps(statement.to_dict(), option=orjson.OPT_SORT_KEYS).decode()
        kept = await context.store.meshes.move(statement.mesh_id, statement.at_ms, text)
        failpoint("move.after_commit")
        if kept != text:
            raise ProtocolError(
                "statement_outdated",
                f"A later move to {Statement.parse(orjson.loads(kept)).detail('to')} is known. If this one "
                "is newer, the clock of this host is behind: set it, and move again.",
            )
        context.audit.record(statement.mesh_id, MESH_MOVED, owner.id, to=statement.detail("to"))
        context.cluster.broadcast(statement.mesh_id, MESH_MOVED, {})
        return Reply(200, {"mesh_id": statement.mesh_id, "to": statement.detail("to")})

    async def _check(self, statement: Statement) -> Member:
        """Return the owner that has signed. `ProtocolError` for another signer, or an unknown address."""
        context, url = self._context, statement.detail("to")
        signer = await context.store.members.by_key(statement.mesh_id, statement.signer)
        if signer is None or signer.status != "active" or signer.role != "owner":
            raise ProtocolError("not_authorized", "An owner of the mesh can move it, and no other member.")
        try:
            is_own = context.addresses.accepts(audience_of(url), None)
        except ValueError as error:
            raise InvalidField("invalid_statement", "to", str(error)) from error
        if not is_own:
            raise ProtocolError(
                WRONG_ADDRESS,
                f"This broker does not know {url} for its own address. Give it that one too "
                f"(`broker up --public-url {url}`, beside the others), then move the mesh.",
                dialled=url,
                addresses=list(context.addresses.public_urls),
            )
        return signer


ROUTES = (
    Route(
        "POST", "/v1/meshes/move", "State the new address of a mesh", handler=MoveRoutes.move, body=MoveBody
    ),
)
