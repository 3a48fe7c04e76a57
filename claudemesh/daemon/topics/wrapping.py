"""Wraps of topic keys: made for members of the directory, and opened when a member of it has made them.

The broker's word about keys does not count here: a member whose keys are in doubt gets no wrap, and an epoch
or a wrap of an unknown maker is not used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.peer import ACTIVE, Peer
from claudemesh.home.keyring import Keyring
from claudemesh.home.topic_keyring import HeldKey
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.topic_keys import (
    KEY_BYTES,
    NONCE_BYTES,
    EpochStatement,
    TopicKey,
    Wrap,
    make_wrap,
    open_wrap,
    sign_epoch,
    verify_epoch,
)
from claudemesh.runtime.aside import Slices
from claudemesh.runtime.logs import get_logger

log = get_logger("topic_keys")


class Wrapping:
    """Makes and opens wraps with this member's keys."""

    def __init__(
        self,
        keyring: Keyring,
        mesh_id: str,
        directory: Directory,
        know: Callable[[Collection[str]], Awaitable[None]],
        entropy: Callable[[int], bytes],
    ) -> None:
        """`know` asks the broker for members by their ids."""
        self._keyring = keyring
        self._mesh_id = mesh_id
        self._directory = directory
        self._know = know
        self._entropy = entropy

    def new_epoch(self, topic: str, key_epoch: int, previous_commitment: str) -> HeldKey:
        """Return a new key, and this member's statement about its epoch."""
        key = TopicKey(topic, key_epoch, self._entropy(KEY_BYTES))
        return HeldKey(key, sign_epoch(self._keyring.current, self._mesh_id, key, previous_commitment))

    def is_signed(self, statement: EpochStatement) -> bool:
        """Tell whether a member, present or past, has made an epoch."""
        maker = statement.created_by
        is_member = self._keyring.is_own(maker) or self._directory.by_key(maker) is not None
        return is_member and verify_epoch(self._mesh_id, statement, (maker,))

    def is_of_revoked(self, statement: EpochStatement) -> bool:
        """Tell whether the maker of an epoch has been revoked."""
        maker = self._directory.by_key(statement.created_by)
        return maker is not None and maker.revocation is not None

    def opened(self, wrap: Wrap) -> TopicKey | None:
        """Return the key in a wrap; None when its wrapper is not known. `ProtocolError`: it does not open."""
        if self._keyring.is_own(wrap.wrapped_by):
            sealing_key = self._keyring.current.x25519_pubkey
            if wrap.wrapped_by != self._keyring.pubkey:
                archived = self._keyring.archive.find(wrap.wrapped_by)
                sealing_key = "" if archived is None else archived.x25519_pubkey
        else:
            wrapper = self._directory.by_key(wrap.wrapped_by)
            sealing_key = "" if wrapper is None else wrapper.sealing_key_of(wrap.wrapped_by)
        if not sealing_key:
            return None
        return open_wrap(self._mesh_id, wrap, self._keyring.shared(sealing_key, wrap.recipient))

    async def for_members(self, key: TopicKey, member_ids: Sequence[str]) -> list[Wrap]:
        """Return the key wrapped for each active member of these, by its keys in the directory.

        The broker's word does not count: a member whose keys are in doubt gets no wrap.
        """
        unknown = [one for one in member_ids if self._directory.by_id(one) is None]
        if unknown:
            await self._know(unknown)
        wraps, slices = list[Wrap](), Slices()
        for member_id in member_ids:
            await slices.rest()
            peer = self._directory.by_id(member_id)
            if peer is None or peer.status != ACTIVE or peer.revocation is not None:
                continue
            if self._keyring.is_own(peer.pubkey):
                continue
            wrap = self._wrap(key, peer)
            if wrap is not None:
                wraps.append(wrap)
        return wraps

    def _wrap(self, key: TopicKey, peer: Peer) -> Wrap | None:
        try:
            shared = self._keyring.shared(peer.x25519_pubkey)
        except ProtocolError as error:
            log.info("topic_key_not_wrapped", member=peer.name, error=error.code)
            return None
        own, nonce = self._keyring.current, self._entropy(NONCE_BYTES)
        return make_wrap(own, self._mesh_id, key, recipient=peer.pubkey, shared=shared, nonce=nonce)

    def for_itself(self, key: TopicKey) -> Wrap:
        """Return the key wrapped for this member."""
        own = self._keyring.current
        shared = self._keyring.shared(own.x25519_pubkey)
        nonce = self._entropy(NONCE_BYTES)
        return make_wrap(own, self._mesh_id, key, recipient=own.ed25519_pubkey, shared=shared, nonce=nonce)
