"""Keyring: private keys of this host's member, on disk and in memory.

`keypair.json` has the current keys and the statements that led to them, `keypair-archive.json` the older keys
that still open messages, `keypair.next.json` the keys of a rotation that is not finished.

Crash story of a rotation: 1. the new keys and their statement are written to keypair.next.json. 2. The older
x25519 key is written to the archive. 3. The broker commits. 4. The new keys replace keypair.json. 5.
keypair.next.json is removed. A crash after any step leaves both pairs on the disk until the broker has told
which one is current.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from claudemesh.home.json_files import malformed, read_object
from claudemesh.home.key_archive import ArchivedKey, KeyArchive, Moment, move_aside
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import ulid_time_ms
from claudemesh.protocol.keys import Identity, new_identity
from claudemesh.protocol.rotation import MAX_STATEMENTS, Rotation
from claudemesh.protocol.sealing import BoxKeys
from claudemesh.runtime.exits import PERMISSION, ExitWith
from claudemesh.runtime.files import UnsafeFile, sync_dir, write_atomic
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.oserrors import cannot

log = get_logger("keys")

_WHEN_MISSING = "the member's keys are gone: restore them from a backup, or join again"
ARCHIVE_NAME = "keypair-archive.json"
NEXT_NAME = "keypair.next.json"


@dataclass(frozen=True, slots=True)
class NextKeys:
    """The keys of a rotation that is not finished, and the statement that leads to them."""

    identity: Identity
    statement: Rotation


class Keyring:
    """The key pairs of this host's member.

    Each user of the keys holds the `Keyring` and reads `current` at the moment of use. So a rotation reaches
    all of them at once, and no part of the process goes on with a key that was replaced.
    """

    def __init__(
        self,
        path: Path,
        current: Identity,
        rotations: Sequence[Rotation] = (),
        archive: KeyArchive | None = None,
        following: NextKeys | None = None,
    ) -> None:
        """`rotations` are the statements that led to the current keys, oldest first."""
        self._path = path
        self._current = current
        self._rotations = tuple(rotations)
        self._archive = archive or KeyArchive(path.with_name(ARCHIVE_NAME))
        self._next = following
        self._boxes = {current.ed25519_pubkey: BoxKeys(current.x25519_privkey)}

    @classmethod
    def load(cls, path: Path) -> Keyring:
        """Read keypair.json. `ExitWith` when it is missing or damaged: it is never replaced by a new key."""
        data = read_object(path, _WHEN_MISSING)
        try:
            rotations = [Rotation.parse(value) for value in data.get("rotations", ())]
            return cls(path, Identity.from_json(data), rotations)
        except (KeyError, TypeError, ValueError, ProtocolError) as error:
            raise malformed(path, error) from error

    @classmethod
    def load_all(cls, path: Path, wall_ms: int) -> Keyring:
        """Read the archive and an unfinished rotation too. Only the holder of the daemon's lock calls it.

        A malformed archive or next file is moved aside: the current keys work without them.
        """
        keyring = cls.load(path)
        archive = _load_archive(path.with_name(ARCHIVE_NAME), wall_ms)
        following = _load_next(path.with_name(NEXT_NAME), wall_ms)
        made = cls(path, keyring.current, keyring.rotations, archive, following)
        if following is not None and following.identity.ed25519_pubkey == made.pubkey:
            made.forget_next()
        return made

    @classmethod
    def create(cls, path: Path, entropy: Callable[[int], bytes], key_id: str) -> Keyring:
        """Make both key pairs from 64 bytes of entropy, and return them when they are on the disk."""
        made = cls(path, new_identity(entropy, key_id))
        made._write(made.current, ())
        return made

    @property
    def current(self) -> Identity:
        """The pair that signs, and the pair that others seal to."""
        return self._current

    @property
    def pubkey(self) -> str:
        """The ed25519 public key by which the mesh knows this member, 64 hex characters."""
        return self._current.ed25519_pubkey

    @property
    def rotations(self) -> tuple[Rotation, ...]:
        """The statements that led to the current keys, oldest first."""
        return self._rotations

    @property
    def archive(self) -> KeyArchive:
        """The older keys that still open messages."""
        return self._archive

    @property
    def next(self) -> NextKeys | None:
        """The keys of a rotation that is not finished."""
        return self._next

    def is_own(self, pubkey: str) -> bool:
        """Tell whether an ed25519 key is this member's, now or before a rotation."""
        if pubkey == self.pubkey or self._archive.find(pubkey) is not None:
            return True
        return any(statement.old_pubkey == pubkey for statement in self._rotations)

    def announced(self) -> dict[str, str]:
        """Return the public keys as a join and a rejoin announce them to the broker."""
        own = self._current
        return {
            "ed25519_pubkey": own.ed25519_pubkey,
            "x25519_pubkey": own.x25519_pubkey,
            "x25519_signature": base64.b64encode(own.x25519_signature).decode(),
            "key_id": own.key_id,
        }

    def shared(self, peer_x25519_pubkey: str, own_pubkey: str | None = None) -> bytes:
        """Return the 32 bytes that a key of this member shares with a peer's x25519 key.

        `own_pubkey` is the ed25519 key of the pair, by default the current one. `ProtocolError` invalid_key
        for an unusable key of the peer, cannot_open for an own pair that is not here any more.
        """
        own = own_pubkey or self.pubkey
        boxes = self._boxes.get(own)
        if boxes is None:
            key = self._archive.find(own)
            if key is None:
                raise ProtocolError(
                    "cannot_open", "The key that this was sealed with has left the key archive."
                )
            boxes = self._boxes[own] = BoxKeys(key.x25519_privkey)
        return boxes.shared(peer_x25519_pubkey)

    def pubkey_of(self, key_id: str) -> str | None:
        """Return the ed25519 key of the own pair with a key id, None when it is not here any more."""
        if key_id == self._current.key_id:
            return self.pubkey
        found = [key.ed25519_pubkey for key in self._archive.keys if key.key_id == key_id]
        return found[0] if found else None

    def prepare(self, following: NextKeys) -> None:
        """Write the keys of a rotation that begins. `OSError` changes nothing."""
        data = {
            "schema_version": 1,
            **following.identity.to_json(),
            "rotation": following.statement.to_dict(),
        }
        write_atomic(self._path.with_name(NEXT_NAME), orjson.dumps(data))
        self._next = following

    def archive_current(self, now: Moment, grace_ms: int) -> int:
        """Write the current x25519 key to the archive; return how many older keys had to make room."""
        own = self._current
        return self._archive.add(ArchivedKey.of(own, ulid_time_ms(own.key_id[2:]), now, grace_ms))

    def install_next(self) -> None:
        """Replace the current keys by the next ones: on the disk first, then in memory.

        A crash before the file is replaced leaves the old keys, after it the new ones. `OSError` changes
        nothing.
        """
        assert self._next is not None
        self.install(self._next.identity, self._next.statement)

    def install(self, new: Identity, statement: Rotation | None = None) -> None:
        """Replace the current keys as `install_next` does; `statement` leads to them."""
        rotations = () if statement is None else (*self._rotations, statement)[-MAX_STATEMENTS:]
        self._write(new, rotations)
        self._current, self._rotations = new, rotations
        self._boxes = {new.ed25519_pubkey: BoxKeys(new.x25519_privkey)}

    def forget_next(self) -> None:
        """Remove keypair.next.json: its keys are current, or the rotation was refused."""
        path = self._path.with_name(NEXT_NAME)
        path.unlink(missing_ok=True)
        sync_dir(path.parent)
        self._next = None

    def roll_back(self) -> None:
        """Give up a rotation that the broker has refused. The current keys stay."""
        self._archive.remove(self.pubkey)
        self.forget_next()

    def expire(self, lived_ms: int, grace_ms: int) -> int:
        """Remove the archived keys whose grace period has passed; return how many."""
        removed = self._archive.expire(lived_ms, grace_ms)
        if removed:
            kept = {self.pubkey, *(key.ed25519_pubkey for key in self._archive.keys)}
            self._boxes = {own: boxes for own, boxes in self._boxes.items() if own in kept}
        return removed

    def _write(self, identity: Identity, rotations: Sequence[Rotation]) -> None:
        data: dict[str, Any] = {"schema_version": 1, **identity.to_json()}
        if rotations:
            data["rotations"] = [statement.to_dict() for statement in rotations]
        write_atomic(self._path, orjson.dumps(data))


def _load_archive(path: Path, wall_ms: int) -> KeyArchive:
    try:
        return KeyArchive.load(path, wall_ms)
    except UnsafeFile as error:
        raise ExitWith(PERMISSION, "unsafe_file", str(error)) from error
    except OSError as error:
        raise cannot("read", error, path) from error


def _load_next(path: Path, wall_ms: int) -> NextKeys | None:
    if not path.exists():
        return None
    try:
        data = read_object(path, "the rotation of this member's keys is finished")
        return NextKeys(Identity.from_json(data), Rotation.parse(data.get("rotation")))
    except (ExitWith, ProtocolError) as error:
        if isinstance(error, ExitWith) and error.error != "malformed_file":
            raise
        log.error("next_keys_malformed", reason=str(error), moved_to=str(move_aside(path, wall_ms)))
        return None
