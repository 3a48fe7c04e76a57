"""Rotate route: rotations that a restore of the database has lost are made again.

The statements prove themselves: each is signed by the key that it leaves, and the caller proves the last one.
Nothing of the member is needed that the database has forgotten.
"""

from __future__ import annotations

from claudemesh.broker import rotation
from claudemesh.broker.context import Context
from claudemesh.broker.http.schemas import RotateBody, given
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.ids import check_uuid
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route

# Statements of one request. A copy that is older than so many rotations of a member loses it.
MOST_LOST = 64


class RotateRoutes:
    """Handler of POST /v1/rotate. It authenticates by signatures only."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def rotate(self, request: Request) -> Reply:
        """Put lost rotations in force again: 200, also when they are."""
        body = given(request.body)
        mesh_id = check_uuid(body.pop("mesh_id", None), "mesh_id")
        rotations = body.get("rotations")
        if isinstance(rotations, list) and len(rotations) > MOST_LOST:
            text = f"rotations must be a list of at most {MOST_LOST} statements."
            raise InvalidField("invalid_params", "rotations", text)
        if await self._context.store.meshes.get(mesh_id) is None:
            raise ProtocolError("mesh_not_found", "This broker has no such mesh.")
        if not await rotation.is_of_a_member(self._context, mesh_id, body):
            raise rotation.refusal("not_a_member")
        member = await rotation.rotate(self._context, mesh_id, body)
        return Reply(200, {"member_id": member.id, "pubkey": member.ed25519_pubkey})


ROUTES = (
    Route(
        "POST",
        "/v1/rotate",
        "Make rotations again that a restore has lost",
        handler=RotateRoutes.rotate,
        body=RotateBody,
    ),
)
