"""Membership and keys of this host, read once at start (daemon.md, Files)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import check_key, check_member_name, check_slug, check_uuid
from claudemesh.protocol.keys import Identity
from claudemesh.runtime.exits import CONFIGURATION, PERMISSION, ExitWith
from claudemesh.runtime.files import UnsafeFile, read_private
from claudemesh.runtime.oserrors import cannot


@dataclass(frozen=True, slots=True)
class Membership:
    """Which mesh, by which broker, as which member. `inviter_pubkey` is None for the mesh's first member.

    `invite` is the link by which this host joined: proof for a broker that has forgotten the member.
    """

    mesh_id: str
    slug: str
    broker_url: str
    member_id: str
    name: str
    role: str
    inviter_pubkey: str | None
    invite: str | None = None


def load_membership(path: Path) -> Membership:
    """Read membership.json. `ExitWith` says how to join when there is none, or what is wrong with it."""
    data = _read_json(path, "join a mesh first: `claudemesh join LINK`, or `claudemesh mesh create SLUG`")
    try:
        inviter, invite = data.get("inviter_pubkey"), data.get("invite")
        return Membership(
            mesh_id=check_uuid(data["mesh_id"], "mesh_id"),
            slug=check_slug(data["slug"]),
            broker_url=str(data["broker_url"]),
            member_id=check_uuid(data["member_id"], "member_id"),
            name=check_member_name(data["name"]),
            role=str(data["role"]),
            inviter_pubkey=None if inviter is None else check_key(inviter, "inviter_pubkey"),
            invite=invite if isinstance(invite, str) else None,
        )
    except (KeyError, ProtocolError) as error:
        raise _malformed(path, error) from error


def load_identity(path: Path) -> Identity:
    """Read keypair.json. A damaged or missing key file is refused, never replaced by a new key."""
    data = _read_json(path, "the member's keys are gone: restore them from a backup, or join again")
    try:
        return Identity.from_json(data)
    except (KeyError, TypeError, ValueError, ProtocolError) as error:
        raise _malformed(path, error) from error


def _read_json(path: Path, when_missing: str) -> dict[str, Any]:
    try:
        data = orjson.loads(read_private(path))
    except FileNotFoundError as error:
        raise ExitWith(CONFIGURATION, "not_joined", f"There is no {path}: {when_missing}.") from error
    except UnsafeFile as error:
        raise ExitWith(PERMISSION, "unsafe_file", str(error)) from error
    except OSError as error:
        raise cannot("read", error, path) from error
    except orjson.JSONDecodeError as error:
        raise _malformed(path, error) from error
    if not isinstance(data, dict):
        raise _malformed(path, TypeError("not an object"))
    return data


def _malformed(path: Path, error: Exception) -> ExitWith:
    # The name of what is missing or wrong, never the value: these files hold secrets.
    what = error.message if isinstance(error, ProtocolError) else type(error).__name__
    return ExitWith(CONFIGURATION, "malformed_file", f"{path} is damaged ({what}): restore it from a backup.")
