"""Verification of a peer's keys by two people, who compare a short string (protocol/comparing.py)."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.peer import Peer
from claudemesh.daemon.identity.sync import DirectorySync
from claudemesh.home.keyring import Keyring
from claudemesh.protocol.comparing import ComparedKeys, short_string
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import HEX_32
from claudemesh.runtime.oserrors import explain


class PeerVerification(Struct, frozen=True, kw_only=True):
    """Shows the string for a peer, and marks its pinned keys as verified."""

    mesh_id: str
    own_id: str
    keyring: Keyring
    directory: Directory
    sync: DirectorySync

    async def string_for(self, wanted: str) -> tuple[Peer, str]:
        """Return the peer with a name or key, and the string to compare. Raise `ProtocolError`."""
        peer = self._find(wanted)
        own, other = self.keyring.current, ComparedKeys(peer.pubkey, peer.x25519_pubkey)
        ours = ComparedKeys(own.ed25519_pubkey, own.x25519_pubkey)
        return peer, await asyncio.to_thread(short_string, self.mesh_id, ours, other)

    def confirm(self, compared: Peer) -> Peer:
        """Mark the compared keys of a peer as verified; it is on the disk when this returns.

        Raise `ProtocolError` key_changed when the peer has other keys by now.
        """
        peer = self.directory.by_id(compared.member_id)
        if peer is None or (peer.pubkey, peer.x25519_pubkey) != (compared.pubkey, compared.x25519_pubkey):
            raise ProtocolError("key_changed", "The member has just got other keys. Compare again.")
        verified = self.directory.note_verified(peer)
        try:
            self.directory.save()
        except OSError as error:
            raise ProtocolError(
                "storage_unavailable",
                f"The keys count as verified until the daemon ends, but not on disk: {explain(error)}.",
            ) from error
        self.sync.changed()
        return verified

    def _find(self, wanted: str) -> Peer:
        text = wanted.removeprefix("@")
        is_key = HEX_32.fullmatch(text) is not None
        peer = self.directory.resolve(name=None if is_key else text, key=text if is_key else None)
        if peer.member_id == self.own_id:
            raise ProtocolError("invalid_field", "A member cannot verify itself. Name another one.")
        if not is_key:
            # The member that has the name now has other keys, so two people would compare in vain.
            self.directory.check_name(peer, text)
        self.directory.check_open(peer, None)
        return peer
