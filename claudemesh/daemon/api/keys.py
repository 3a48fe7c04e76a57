"""Key routes: rotation of this member's keys, and removal of archived keys whose time has passed."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from claudemesh.daemon.api.schemas import Body, EmptyBody
from claudemesh.daemon.identity.rotation import KeyRotation
from claudemesh.daemon.identity.verifying import PeerVerification
from claudemesh.home.keyring import Keyring
from claudemesh.runtime.web.replies import Reply
from claudemesh.runtime.web.routes import Request, Route


class KeysRotated(Struct):
    """The new keys of this member; `pending` while the broker has not confirmed them."""

    status: Literal["rotated", "pending"]
    old_pubkey: str
    pubkey: str
    key_id: str


class ArchiveCleaned(Struct):
    """The number of archived keys that were removed, and of those that are left."""

    removed: int
    kept: int


class VerifyBody(Body):
    """The member to compare, by name or key. `confirm`: the digits were the same on both hosts."""

    member: Annotated[str, Meta(min_length=1, max_length=65)]
    confirm: bool = False


class PeerVerified(Struct):
    """The digits that both hosts show, and whether the user has confirmed the member's keys."""

    name: str
    member_id: str
    pubkey: str
    digits: str
    verified: bool


class KeyRoutes(Struct, frozen=True, kw_only=True):
    """Handlers of /v1/keys, and of the verification of a peer's keys."""

    rotation: KeyRotation
    keyring: Keyring
    verification: PeerVerification

    async def verify(self, request: Request) -> Reply:
        """Return the digits to compare with a member; with `confirm`, mark its keys as verified."""
        body: VerifyBody = request.body
        peer, digits = await self.verification.string_for(body.member)
        if body.confirm:
            peer = self.verification.confirm(peer)
        return Reply(200, {**peer.card(), "digits": digits, "verified": peer.is_verified})

    async def rotate(self, request: Request) -> Reply:
        """Replace both key pairs of this member: 200 when the broker has confirmed, 202 while it has not."""
        outcome = await self.rotation.rotate()
        answer = {
            "status": "pending" if outcome.is_pending else "rotated",
            "old_pubkey": outcome.old_pubkey,
            "pubkey": outcome.pubkey,
            "key_id": outcome.key_id,
        }
        return Reply(202 if outcome.is_pending else 200, answer)

    async def clean_archive(self, request: Request) -> Reply:
        """Remove archived keys whose grace period has passed."""
        removed = self.rotation.expire()
        return Reply(200, {"removed": removed, "kept": len(self.keyring.archive.keys)})


ROUTES = (
    Route(
        "POST",
        "/v1/keys/rotate",
        "Replace this member's keys; on the unix socket only",
        {200: KeysRotated, 202: KeysRotated},
        KeyRoutes.rotate,
        body=EmptyBody,
        body_required=False,
        socket_only=True,
        errors=(409, 503),
    ),
    Route(
        "POST",
        "/v1/peers/verify",
        "Compare the keys of a member; on the unix socket only",
        {200: PeerVerified},
        KeyRoutes.verify,
        body=VerifyBody,
        socket_only=True,
        errors=(404, 409, 503),
    ),
    Route(
        "POST",
        "/v1/keys/archive/cleanup",
        "Remove archived keys whose grace period has passed; on the unix socket only",
        {200: ArchiveCleaned},
        KeyRoutes.clean_archive,
        body=EmptyBody,
        body_required=False,
        socket_only=True,
    ),
)
