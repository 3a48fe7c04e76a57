"""Key archive: the x25519 keys from which this host's member has rotated, in keypair-archive.json.

An archived key opens what was sealed before its rotation. It is deleted when the grace period has passed in
time that this host has lived through (runtime/lived.py). The moments in the file are wall time, for display.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson
from nacl.bindings import crypto_scalarmult_base

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import KEY_ID, check_key
from claudemesh.protocol.keys import Identity
from claudemesh.runtime.clock import iso_ms, parse_iso
from claudemesh.runtime.files import read_private, sync_dir, write_atomic
from claudemesh.runtime.logs import get_logger

log = get_logger("keys")

MAX_KEYS: Final = 8
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment in wall time, for display, and in time that this host has lived through, for decisions."""

    wall_ms: int
    lived_ms: int


@dataclass(frozen=True, slots=True)
class ArchivedKey:
    """A key pair that was rotated out. `lived_ms` is None in files of other programs."""

    ed25519_pubkey: str
    x25519_pubkey: str
    x25519_privkey: bytes = field(repr=False)
    key_id: str
    created_at: str
    rotated_out_at: str
    expires_at: str
    lived_ms: int | None = None

    @classmethod
    def of(cls, identity: Identity, created_ms: int, now: Moment, grace_ms: int) -> ArchivedKey:
        """Return the entry of an identity that is rotated out now."""
        return cls(
            identity.ed25519_pubkey,
            identity.x25519_pubkey,
            identity.x25519_privkey,
            identity.key_id,
            iso_ms(created_ms),
            iso_ms(now.wall_ms),
            iso_ms(now.wall_ms + grace_ms),
            now.lived_ms,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the entry as the file holds it."""
        return {
            "ed25519_pubkey": self.ed25519_pubkey,
            "x25519_pubkey": self.x25519_pubkey,
            "x25519_privkey": base64.b64encode(self.x25519_privkey).decode(),
            "key_id": self.key_id,
            "created_at": self.created_at,
            "rotated_out_at": self.rotated_out_at,
            "expires_at": self.expires_at,
            "rotated_out_lived_ms": self.lived_ms,
        }

    @classmethod
    def from_json(cls, value: Any) -> ArchivedKey:
        """Return an entry of the file. `ValueError` or `ProtocolError` when a field is wrong."""
        if not isinstance(value, Mapping):
            raise ValueError("an entry is not an object")
        privkey = base64.b64decode(_text(value, "x25519_privkey"), validate=True)
        x25519_pubkey = check_key(value.get("x25519_pubkey"), "x25519_pubkey")
        if len(privkey) != 32 or crypto_scalarmult_base(privkey).hex() != x25519_pubkey:
            raise ValueError("a private key does not match its public key")
        key_id, lived_ms = _text(value, "key_id"), value.get("rotated_out_lived_ms")
        if KEY_ID.fullmatch(key_id) is None:
            raise ValueError("a key_id is wrong")
        if lived_ms is not None and (type(lived_ms) is not int or lived_ms < 0):
            raise ValueError("rotated_out_lived_ms is wrong")
        moments = [_text(value, name) for name in ("created_at", "rotated_out_at", "expires_at")]
        for moment in moments:
            parse_iso(moment)
        ed25519_pubkey = check_key(value.get("ed25519_pubkey"), "ed25519_pubkey")
        created, rotated_out, expires = moments
        return cls(ed25519_pubkey, x25519_pubkey, privkey, key_id, created, rotated_out, expires, lived_ms)


def parse_archive(raw: bytes) -> tuple[ArchivedKey, ...]:
    """Return the keys of a file, oldest first. `ValueError` or `ProtocolError` when it is malformed."""
    value = orjson.loads(raw)
    if not isinstance(value, dict) or value.get("schema_version") != 1:
        raise ValueError("schema_version is not 1")
    entries = value.get("keys")
    if not isinstance(entries, list):
        raise ValueError("keys is not a list")
    keys = tuple(map(ArchivedKey.from_json, entries))
    for names in (lambda key: key.key_id, lambda key: key.ed25519_pubkey):
        if len(set(map(names, keys))) != len(keys):
            raise ValueError("a key is there twice")
    return keys


def encode_archive(keys: Sequence[ArchivedKey]) -> bytes:
    """Return the content of the file."""
    entries = [key.to_json() for key in keys]
    return orjson.dumps({"schema_version": 1, "max_archived_keys": MAX_KEYS, "keys": entries})


def stamped(keys: Sequence[ArchivedKey], lived_ms: int) -> tuple[ArchivedKey, ...]:
    """Return the keys with a lived time each, none of it in the future.

    A key without one, or from another host's clock, begins its grace period now.
    """
    return tuple(
        key if key.lived_ms is not None and key.lived_ms <= lived_ms else replace(key, lived_ms=lived_ms)
        for key in keys
    )


def unexpired(keys: Sequence[ArchivedKey], lived_ms: int, grace_ms: int) -> tuple[ArchivedKey, ...]:
    """Return the keys whose grace period has not passed."""
    return tuple(key for key in keys if lived_ms - (key.lived_ms or 0) < grace_ms)


class KeyArchive:
    """The archived keys, in memory and on disk. Each change is on the disk before it is in memory."""

    def __init__(self, path: Path, keys: tuple[ArchivedKey, ...] = ()) -> None:
        self._path = path
        self._keys = keys

    @classmethod
    def load(cls, path: Path, wall_ms: int) -> KeyArchive:
        """Read the file. A malformed one is moved aside, and the archive begins empty.

        `OSError` and `UnsafeFile` for a file that cannot be read.
        """
        try:
            return cls(path, parse_archive(read_private(path)))
        except FileNotFoundError:
            return cls(path)
        except (ValueError, ProtocolError) as error:
            moved = move_aside(path, wall_ms)
            log.error("key_archive_malformed", reason=_reason(error), moved_to=str(moved))
            return cls(path)

    @property
    def keys(self) -> tuple[ArchivedKey, ...]:
        """The archived keys, oldest first."""
        return self._keys

    def find(self, ed25519_pubkey: str) -> ArchivedKey | None:
        """Return the entry that was sealed to under this ed25519 key."""
        return next((key for key in self._keys if key.ed25519_pubkey == ed25519_pubkey), None)

    def add(self, key: ArchivedKey) -> int:
        """Write a key; one that is there stays as it is. Return how many were removed to make room."""
        if self.find(key.ed25519_pubkey) is not None:
            return 0
        keys = (*self._keys, key)
        removed = max(0, len(keys) - MAX_KEYS)
        self._write(keys[removed:])
        return removed

    def remove(self, ed25519_pubkey: str) -> None:
        """Remove a key, if it is there."""
        kept = tuple(key for key in self._keys if key.ed25519_pubkey != ed25519_pubkey)
        if kept != self._keys:
            self._write(kept)

    def expire(self, lived_ms: int, grace_ms: int) -> int:
        """Remove the keys whose grace period has passed; return how many."""
        kept = unexpired(stamped(self._keys, lived_ms), lived_ms, grace_ms)
        removed = len(self._keys) - len(kept)
        if kept != self._keys:
            self._write(kept)
        return removed

    def _write(self, keys: tuple[ArchivedKey, ...]) -> None:
        write_atomic(self._path, encode_archive(keys))
        self._keys = keys


def move_aside(path: Path, wall_ms: int) -> Path:
    """Rename a malformed file to `<name>.malformed-<ms>`, and return its new path."""
    moved = path.with_name(f"{path.name}.malformed-{wall_ms}")
    path.rename(moved)
    sync_dir(path.parent)
    return moved


def _reason(error: Exception) -> str:
    # A message of the library may quote the content, which is secret.
    is_ours = isinstance(error, ProtocolError) or not isinstance(error, orjson.JSONDecodeError)
    return str(error) if is_ours else "it is no JSON"


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise ValueError(f"{name} is not a text")
    return text
