"""Keyring: private keys of this host's member, in keypair.json and in memory."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import orjson

from claudemesh.home.json_files import malformed, read_object
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.keys import Identity, new_identity
from claudemesh.protocol.sealing import BoxKeys
from claudemesh.runtime.files import write_atomic

_WHEN_MISSING = "the member's keys are gone: restore them from a backup, or join again"


class Keyring:
    """The current key pairs of this host's member.

    Each user of the keys holds the `Keyring` and reads `current` at the moment of use. So `install` reaches
    all of them at once, and no part of the process goes on with a key that was replaced.
    """

    def __init__(self, path: Path, current: Identity) -> None:
        self._path = path
        self._current = current
        self._boxes = BoxKeys(current.x25519_privkey)

    @classmethod
    def load(cls, path: Path) -> Keyring:
        """Read keypair.json. `ExitWith` when it is missing or damaged: it is never replaced by a new key."""
        data = read_object(path, _WHEN_MISSING)
        try:
            return cls(path, Identity.from_json(data))
        except (KeyError, TypeError, ValueError, ProtocolError) as error:
            raise malformed(path, error) from error

    @classmethod
    def create(cls, path: Path, entropy: Callable[[int], bytes], key_id: str) -> Keyring:
        """Make both key pairs from 64 bytes of entropy, and return them when they are on the disk."""
        made = cls(path, new_identity(entropy, key_id))
        made._write(made.current)
        return made

    @property
    def current(self) -> Identity:
        """The pair that signs, and the pair that others seal to."""
        return self._current

    @property
    def pubkey(self) -> str:
        """The ed25519 public key by which the mesh knows this member, 64 hex characters."""
        return self._current.ed25519_pubkey

    def announced(self) -> dict[str, str]:
        """Return the public keys as a join and a rejoin announce them to the broker."""
        own = self._current
        return {
            "ed25519_pubkey": own.ed25519_pubkey,
            "x25519_pubkey": own.x25519_pubkey,
            "x25519_signature": base64.b64encode(own.x25519_signature).decode(),
            "key_id": own.key_id,
        }

    def shared(self, peer_x25519_pubkey: str) -> bytes:
        """Return the 32 bytes shared with a peer's key. `ProtocolError` invalid_key for an unusable key."""
        return self._boxes.shared(peer_x25519_pubkey)

    def install(self, new: Identity) -> None:
        """Replace the current keys: on the disk first, then in memory.

        A crash before the file is replaced leaves the old keys, after it the new ones. `OSError` changes
        nothing.
        """
        self._write(new)
        self._current = new
        self._boxes = BoxKeys(new.x25519_privkey)

    def _write(self, identity: Identity) -> None:
        write_atomic(self._path, orjson.dumps({"schema_version": 1, **identity.to_json()}))
