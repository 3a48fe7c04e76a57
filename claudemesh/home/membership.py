"""Membership of this host in a mesh: membership.json.

A newer version may have added fields, and what they say stays true when this version changes another one:
every rewrite keeps them. A file of a newer form (`schema_version`) is refused, because its fields may mean
something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import orjson

from claudemesh.home.json_files import malformed, read_object
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.ids import check_key, check_member_name, check_slug, check_uuid
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.files import write_atomic
from claudemesh.runtime.urls import split_broker_url

_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Membership:
    """One member of one mesh, and the address of its broker.

    `inviter_pubkey` is None for the mesh's first member. `invite` is the link by which this host joined:
    proof for a broker that has forgotten the member. An ephemeral member ends with its daemon. `moved_at_ms`
    is the time of the last move that was followed, by the clock of its signer; 0 before the first. `others`
    are fields of membership.json that this version does not know.
    """

    mesh_id: str
    slug: str
    broker_url: str
    member_id: str
    name: str
    role: str
    inviter_pubkey: str | None
    invite: str | None = None
    ephemeral: bool = False
    moved_at_ms: int = 0
    others: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def shown(self) -> dict[str, Any]:
        """Return the membership as commands print it: without the invite, which may admit others."""
        hidden = {"invite", "moved_at_ms", *self.others}
        return {name: value for name, value in self.to_json().items() if name not in hidden}

    def to_json(self) -> dict[str, Any]:
        """Return the membership as membership.json holds it."""
        known = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "others"}
        return {**self.others, "schema_version": _SCHEMA_VERSION, **known}


_KNOWN = {"schema_version", *(one.name for one in fields(Membership))} - {"others"}


def load_membership(path: Path) -> Membership:
    """Read membership.json. `ExitWith` says how to join when there is none, or what is wrong with it."""
    data = read_object(path, "join a mesh first: `claudemesh join LINK`, or `claudemesh mesh create SLUG`")
    try:
        inviter, invite = data.get("inviter_pubkey"), data.get("invite")
        return Membership(
            mesh_id=check_uuid(data["mesh_id"], "mesh_id"),
            slug=check_slug(data["slug"]),
            broker_url=_checked_url(str(data["broker_url"])),
            member_id=check_uuid(data["member_id"], "member_id"),
            name=check_member_name(data["name"]),
            role=str(data["role"]),
            inviter_pubkey=None if inviter is None else check_key(inviter, "inviter_pubkey"),
            invite=invite if isinstance(invite, str) else None,
            ephemeral=data.get("ephemeral") is True,
            moved_at_ms=moved_at if isinstance(moved_at := data.get("moved_at_ms"), int) else 0,
            others={name: value for name, value in data.items() if name not in _KNOWN},
        )
    except (KeyError, ProtocolError) as error:
        raise malformed(path, error) from error


def _checked_url(url: str) -> str:
    try:
        split_broker_url(url)
    except ValueError as error:
        raise InvalidField("invalid_broker_url", "broker_url", str(error).removesuffix(".")) from error
    return url


def change_address(path: Path, url: str, moved_at_ms: int) -> None:
    """Write another address of the broker into membership.json, as a statement of that time has it."""
    failpoint("move.before_membership")
    save_membership(path, replace(load_membership(path), broker_url=url, moved_at_ms=moved_at_ms))
    failpoint("move.after_membership")


def save_membership(path: Path, membership: Membership) -> None:
    """Replace membership.json; the membership is on the disk when this returns. `OSError`."""
    write_atomic(path, orjson.dumps(membership.to_json()))
