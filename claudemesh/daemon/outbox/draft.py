"""Drafts of sends: resolved and fingerprinted, not sealed yet, and perhaps refused.

A refusal is used only when the outbox does not know the id: a known id is answered from its row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

import orjson

from claudemesh.daemon.outbox.destinations import Destination, Destinations
from claudemesh.daemon.outbox.request import SendRequest, Target
from claudemesh.daemon.outbox.sealer import fingerprint
from claudemesh.daemon.outbox.states import Answer, KnownRow
from claudemesh.daemon.outbox.types import NewRow, Submission
from claudemesh.protocol.errors import ProtocolError

SameAs: TypeAlias = Callable[[KnownRow, bytes], bool]


class Draft(NamedTuple):
    """A send before it is sealed. `to` is None for an unknown destination; `mentions` are ed25519 keys."""

    client_message_id: str
    request_fingerprint: bytes
    to: Destination | None
    mentions: tuple[str, ...]
    refusal: Answer | None
    same_as: SameAs | None

    def submission(self, row: NewRow | None, refusal: Answer | None) -> Submission:
        """Return the submission for the transaction: the row to insert, or the refusal."""
        return Submission(self.client_message_id, self.request_fingerprint, row, refusal, self.same_as)


class Drafts:
    """Makes drafts of sends."""

    def __init__(
        self,
        destinations: Destinations,
        no_room: Callable[[], Answer | None],
        look_again: Callable[[Target], Awaitable[bool]],
    ) -> None:
        """`no_room` returns the refusal when the disk or the outbox is full.

        `look_again` asks the broker for a newer list of members or topics, and returns whether it got one.
        """
        self._destinations = destinations
        self._no_room = no_room
        self.look_again = look_again

    def make(self, request: SendRequest, client_message_id: str) -> Draft:
        """Resolve and fingerprint a request."""
        try:
            to = self._destinations.resolve(request.target)
        except ProtocolError as error:
            return self._unresolved(request, client_message_id, error)
        mentions, refused = self._checked(request, to, client_message_id)

        def same_as(row: KnownRow, payload: bytes) -> bool:
            """Whether a known row is the same send to an earlier key of the recipient."""
            ref = _reference_in(payload)
            if to.peer is None or ref is None or ref not in to.peer.earlier_keys:
                return False
            return fingerprint(request, "dm", ref) == row.request_fingerprint

        return Draft(client_message_id, fingerprint(request, to.kind, to.ref), to, mentions, refused, same_as)

    def mentions(self, request: SendRequest, found: Draft) -> tuple[str, ...]:
        """Return the keys of the members that a send mentions, in its request or in its text."""
        return self._destinations.mentions_of(request, found.mentions)

    def _checked(
        self, request: SendRequest, to: Destination, client_message_id: str
    ) -> tuple[tuple[str, ...], Answer | None]:
        """Return the keys of the mentioned members, and the refusal of a new id if there is one."""
        # Only a new id needs room. A known id is answered in any case.
        if full := self._no_room():
            return (), Answer(full.status, {**full.body, "client_message_id": client_message_id})
        try:
            self._destinations.check_open(to, request.target)
            return self._destinations.references(request.mentions), None
        except ProtocolError as error:
            return (), refusal(error, client_message_id)

    def _unresolved(self, request: SendRequest, client_message_id: str, error: ProtocolError) -> Draft:
        """Draft a send whose destination is unknown, or not known any more.

        A known row of this id is compared with its own recipient filled in. For a topic the name is the
        reference.
        """
        target, destinations = request.target, self._destinations
        own = fingerprint(request, target.kind, target.ref or "")
        same_as: SameAs | None = None
        if target.kind == "dm":

            def same_as(row: KnownRow, payload: bytes) -> bool:
                ref = _reference_in(payload)
                if ref is None or destinations.is_known_key(ref):
                    return False
                return fingerprint(request, "dm", ref) == row.request_fingerprint

        return Draft(client_message_id, own, None, (), refusal(error, client_message_id), same_as)


def refusal(error: ProtocolError, client_message_id: str) -> Answer:
    """Return the API's answer to a send that is not accepted."""
    return Answer(error.status, {**error.as_body(), "client_message_id": client_message_id})


def _reference_in(payload: bytes) -> str | None:
    if not payload:
        return None
    ref: str = orjson.loads(payload)["destination_ref"]
    return ref
