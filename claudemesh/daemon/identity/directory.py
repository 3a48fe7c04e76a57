"""The mesh's members as last seen, and the keys pinned to their names (protocol.md, Envelope).

Kept in peers.json, so that sends resolve and retries are recognised while the broker is away.
Members that left stay, for the same reason.
"""

from __future__ import annotations

import base64
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import check_key, check_member_name, check_uuid
from claudemesh.protocol.keys import verify_key_binding
from claudemesh.runtime.files import read_private, write_atomic
from claudemesh.runtime.logs import get_logger

log = get_logger("directory")

_NEAR = 3


@dataclass(frozen=True, slots=True)
class Peer:
    """A member as this host knows it."""

    member_id: str
    name: str
    pubkey: str
    x25519_pubkey: str
    key_id: str
    role: str
    status: str
    online: bool = False
    presence_status: str | None = None
    summary: str | None = None
    visible: bool = True
    last_seen_at: int | None = None
    earlier_keys: tuple[str, ...] = ()


class Directory:
    """Names, keys and presence of the mesh's members, in memory and in peers.json."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_id: dict[str, Peer] = {}
        self._by_name: dict[str, str] = {}
        self._by_key: dict[str, str] = {}
        self.refused = 0
        # Told of an entry that is active again though it was revoked; True keeps it revoked here.
        self.on_revived: Callable[[Mapping[str, Any]], bool] = lambda item: False

    def load(self) -> None:
        """Read peers.json; none yet is an empty directory. `ValueError` when it is damaged."""
        try:
            data = orjson.loads(read_private(self._path, limit=256 << 20))
        except FileNotFoundError:
            return
        for item in data["peers"]:
            self._remember(Peer(**{**item, "earlier_keys": tuple(item["earlier_keys"])}))

    def save(self) -> None:
        """Write peers.json whole."""
        peers = [asdict(peer) for peer in self._by_id.values()]
        write_atomic(self._path, orjson.dumps({"schema_version": 1, "peers": peers}))

    def apply(self, items: Iterable[Mapping[str, Any]]) -> bool:
        """Take over the broker's list; return whether anything worth saving changed.

        An entry whose keys are not bound to each other, or that shows another key for a pinned name,
        is refused and logged; what was known before stays.
        """
        changed = False
        for item in items:
            try:
                peer = _parse(item)
            except (ProtocolError, KeyError, TypeError, ValueError) as error:
                self._refuse("malformed", item.get("name"), error)
                continue
            known = self._by_id.get(peer.member_id)
            pinned = self._by_name.get(peer.name.lower())
            if (known is not None and known.pubkey != peer.pubkey) or pinned not in (None, peer.member_id):
                self._refuse("key_changed", peer.name, None)
                continue
            if known is not None and (known.status, peer.status) == ("revoked", "active"):
                log.warning("revoked_member_listed_as_active", name=peer.name, member_id=peer.member_id)
                if self.on_revived(item):
                    continue
            if peer != known:
                changed = True
                self._remember(peer)
        return changed

    def set_online(self, member_id: str, online: bool) -> None:
        """Note that a member came or went."""
        peer = self._by_id.get(member_id)
        if peer is not None:
            self._by_id[member_id] = replace(peer, online=online)

    def all_offline(self) -> None:
        """Without the broker nobody is known to be online."""
        for member_id in self._by_id:
            self.set_online(member_id, False)

    def by_id(self, member_id: str) -> Peer | None:
        """Find a member by its id."""
        return self._by_id.get(member_id)

    def by_key(self, pubkey: str) -> Peer | None:
        """Find a member by a key of its own, present or past."""
        member_id = self._by_key.get(pubkey)
        return None if member_id is None else self._by_id[member_id]

    def by_name(self, name: str) -> Peer | None:
        """Find a member by name, without regard to case."""
        member_id = self._by_name.get(name.lower())
        return None if member_id is None else self._by_id[member_id]

    def near(self, name: str) -> list[str]:
        """Return up to three active members whose names look like this one."""
        names = {peer.name.lower(): peer.name for peer in self._by_id.values() if peer.status == "active"}
        return [names[match] for match in difflib.get_close_matches(name.lower(), names, n=_NEAR)]

    def peers(self) -> list[Peer]:
        """Return the active members, by name."""
        active = [peer for peer in self._by_id.values() if peer.status == "active"]
        return sorted(active, key=lambda peer: peer.name.lower())

    def _remember(self, peer: Peer) -> None:
        self._by_id[peer.member_id] = peer
        self._by_name[peer.name.lower()] = peer.member_id
        self._by_key[peer.pubkey] = peer.member_id
        for key in peer.earlier_keys:
            self._by_key.setdefault(key, peer.member_id)

    def _refuse(self, reason: str, name: object, error: Exception | None) -> None:
        self.refused += 1
        log.warning("peer_refused", reason=reason, name=name, error=repr(error) if error else None)


def _parse(item: Mapping[str, Any]) -> Peer:
    pubkey = check_key(item["pubkey"], "pubkey")
    x25519_pubkey = check_key(item["x25519_pubkey"], "x25519_pubkey")
    signature = base64.b64decode(item["x25519_signature"], validate=True)
    if not verify_key_binding(pubkey, x25519_pubkey, signature):
        raise ValueError("the sealing key is not signed by the member's key")
    return Peer(
        member_id=check_uuid(item["member_id"], "member_id"),
        name=check_member_name(item["name"]),
        pubkey=pubkey,
        x25519_pubkey=x25519_pubkey,
        key_id=str(item["key_id"]),
        role=str(item["role"]),
        status=str(item["status"]),
        online=item.get("online") is True,
        presence_status=_optional_text(item.get("presence_status")),
        summary=_optional_text(item.get("summary")),
        visible=item.get("visible") is not False,
        last_seen_at=item.get("last_seen_at"),
        earlier_keys=tuple(check_key(key, "earlier_keys") for key in item.get("earlier_keys", ())),
    )


def _optional_text(value: object) -> str | None:
    return value if isinstance(value, str) else None
