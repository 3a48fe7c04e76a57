"""Resolution of targets: from the member, topic or queue that a send names to the reference in its
envelope."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.peer import Peer
from claudemesh.daemon.outbox.mentions import names_in
from claudemesh.daemon.outbox.request import MAX_MENTIONS, SendRequest, Target
from claudemesh.protocol.errors import ProtocolError


class Destination(Struct, frozen=True):
    """A resolved target: kind and reference as the envelope holds them; `peer` is the member of a dm."""

    kind: str
    ref: str
    peer: Peer | None = None


class Destinations:
    """Resolves members against the directory, and topics and queues against the list of topics."""

    def __init__(
        self, directory: Directory, check_topic: Callable[[str, str], None] = lambda kind, name: None
    ) -> None:
        """`check_topic` gets kind and name, and raises `ProtocolError` topic_not_found."""
        self._directory = directory
        self._check_topic = check_topic

    def resolve(self, target: Target) -> Destination:
        """Return the destination of a target.

        Raise `ProtocolError` destination_not_found or topic_not_found, with similar names.
        """
        if target.kind == "dm":
            peer = self._directory.resolve(name=target.name, key=target.ref)
            return Destination("dm", peer.pubkey, peer)
        assert target.ref is not None
        self._check_topic(target.kind, target.ref)
        return Destination(target.kind, target.ref)

    def references(self, targets: tuple[Target, ...]) -> tuple[str, ...]:
        """Return the ed25519 keys of mentioned members. Raise the errors of `resolve`."""
        return tuple([self.resolve(target).ref for target in targets]) if targets else ()

    def mentions_of(self, request: SendRequest, given: tuple[str, ...]) -> tuple[str, ...]:
        """Return the ed25519 keys of `given`, and of the members that the text of a post mentions.

        Of a long text the request holds the names, because its message is the beginning. A name of no member
        is plain text. The envelope holds at most 64 mentions.
        """
        if request.target.kind != "topic":
            return given
        found = dict.fromkeys(given)
        for spellings in names_in(request.message) if request.named is None else request.named:
            if len(found) == MAX_MENTIONS:
                break
            found |= dict.fromkeys(self._mentioned(spellings))
        return tuple(found)

    def _mentioned(self, spellings: Sequence[str]) -> Sequence[str]:
        for name in spellings:
            peer = self._directory.by_name(name)
            if peer is not None:
                try:
                    self._directory.check_open(peer, name)
                except ProtocolError:
                    return ()
                return (peer.pubkey,)
        return ()

    def check_open(self, to: Destination, target: Target) -> None:
        """Raise `ProtocolError` when a destination takes no new sends: it has left, or its name is
        refused."""
        if to.peer is not None:
            self._directory.check_open(to.peer, target.name)

    def is_known_key(self, pubkey: str) -> bool:
        """Whether an ed25519 key is, or was, the key of a member in the directory."""
        return self._directory.by_key(pubkey) is not None
