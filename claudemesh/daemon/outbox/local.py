"""Local sends: the way of a message from one session of this host to another.

It goes into the inbox of this host at once, through no broker, and its row in the outbox is done from the
beginning. The two databases have no common transaction, so their order decides.

Crash story: the message is in the inbox, on the disk, before its row is in the outbox, and the caller is
answered behind both. A crash between the two leaves a message whose send is not answered. The same send,
repeated under its id, finds the message by the id and the fingerprint of its request, and writes the row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from claudemesh.daemon.identity.peer import Peer
from claudemesh.daemon.outbox.destinations import Destination
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.states import Answer
from claudemesh.daemon.outbox.types import NewRow


class LocalSend(Struct, frozen=True):
    """A send to this host: its request, the member that it is from and to, its id and its fingerprint."""

    request: SendRequest
    member: Peer
    client_message_id: str
    request_fingerprint: bytes
    message_id: str
    # The keys of the members that it mentions.
    mentions: tuple[str, ...]


class LocalDelivery(Protocol):
    """The inbox of this host, as a local send uses it."""

    def takes(self, request: SendRequest, to: Destination | None) -> bool:
        """Whether a send goes to this host itself, without a file."""
        ...

    async def deliver(self, send: LocalSend, on_queued: Callable[[], None] | None) -> tuple[str, bool]:
        """Write a message, or find it. Return its id, and whether it is the one of this request.

        Raise `StorageError`, and `Overloaded` when too many wait.
        """
        ...

    def written(self, client_message_id: str, row: NewRow) -> None:
        """Note that the row of a local send is on the disk."""
        ...


def unwritten(answer: Answer, client_message_id: str) -> Answer:
    """Return the answer to a send whose message is in the inbox, and whose row could not be written.

    It names the id: the caller may have given none, and a send without it would be a second message.
    """
    text = (
        "The message is in the inbox of this host, and its send could not be noted in the outbox. Send it "
        f"again under the client_message_id {client_message_id}, so that it is no second message."
    )
    return Answer(answer.status, {**answer.body, "message": text, "client_message_id": client_message_id})
