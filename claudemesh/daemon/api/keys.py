"""Key routes: rotation of this member's keys, and removal of archived keys whose time has passed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from claudemesh.daemon.api.schemas import EmptyBody
from claudemesh.daemon.identity.rotation import KeyRotation
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


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRoutes:
    """Handlers of /v1/keys."""

    rotation: KeyRotation
    keyring: Keyring

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
        "/v1/keys/archive/cleanup",
        "Remove archived keys whose grace period has passed; on the unix socket only",
        {200: ArchiveCleaned},
        KeyRoutes.clean_archive,
        body=EmptyBody,
        body_required=False,
        socket_only=True,
    ),
)
