"""Keys of topics and queues: rows, decisions, and the operations of a store.

See docs/spec/broker.md, Topic keys. The broker holds epochs and wraps and never a key.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby, islice
from typing import Final, NamedTuple, Protocol

from msgspec import Struct

from claudemesh.broker.store.types import Member, TopicMode
from claudemesh.protocol.topic_keys import DEFAULT_KEY_EPOCHS, MAX_WRAPS_A_RECIPIENT

# A maker that registers its epoch again after a restore may leave this many numbers out.
MOST_SKIPPED: Final = 64
HOUR_MS: Final = 3_600_000
# Topics and epochs of one batch of the upkeep.
BATCH_TOPICS: Final = 500


class EpochRow(Struct, frozen=True):
    """An epoch as its maker has signed it. `created_by` is the ed25519 key of the maker."""

    key_epoch: int
    commitment: str
    previous_commitment: str
    created_by: str
    signature: bytes
    created_at: int


class WrapRow(NamedTuple):
    """A wrap. `recipient` and `wrapped_by` are ed25519 keys."""

    key_epoch: int
    recipient: str
    wrapped_by: str
    nonce: bytes
    ciphertext: bytes
    signature: bytes


class KeyState(Struct, frozen=True):
    """A topic's keys as one member sees them.

    `current` is 0 before the first epoch, and of a topic that was deleted. `epochs` are the current one and
    those that were asked for. `wraps` are for the member, those for its present key first. Sends under epochs
    up to `floor` are refused.
    """

    mode: TopicMode
    current: int
    rekey_wanted: bool
    floor: int
    epochs: tuple[EpochRow, ...]
    wraps: tuple[WrapRow, ...]


class NewEpoch(Struct, frozen=True):
    """The wish of a member to make the epoch after `expected`. `most_made` bounds its epochs of an hour."""

    mesh_id: str
    topic: str
    expected: int
    member_id: str
    epoch: EpochRow
    wraps: tuple[WrapRow, ...]
    lived_ms: int
    most_made: int


class EpochMade(Struct, frozen=True):
    """The epoch is current, or was when it was registered first; `recipients` are members with new wraps."""

    key_epoch: int
    recipients: tuple[str, ...]
    is_new: bool = True


class EpochRefused(Struct, frozen=True):
    """Nothing was written: topic_not_found, not_a_member, key_epoch_conflict, too_many_epochs."""

    code: str
    current: int = 0


class EpochFacts(Struct, frozen=True):
    """The rows that decide about an epoch. `mode` is None without such a topic."""

    current: int | None
    is_active: bool
    same_number: str | None  # the commitment of the epoch that has this number
    made: int  # epochs that the member has made within the hour


def judge_epoch(wish: NewEpoch, facts: EpochFacts) -> EpochRefused | None:
    """Decide whether an epoch is made: by compare-and-set of the current number. None: it is.

    The same epoch once more is made again, so that its maker can repeat a call whose answer was lost.
    """
    if facts.current is None:
        return EpochRefused("topic_not_found")
    if not facts.is_active:
        return EpochRefused("not_a_member")
    number = wish.epoch.key_epoch
    if facts.same_number is not None and facts.same_number == wish.epoch.commitment:
        return None
    if facts.current != wish.expected or not facts.current < number <= facts.current + MOST_SKIPPED:
        return EpochRefused("key_epoch_conflict", facts.current)
    return EpochRefused("too_many_epochs") if facts.made >= wish.most_made else None


def judge_key_epoch(key_epoch: int | None, current: int, floor: int) -> str | None:
    """Return why a send under an epoch is refused, None when it is not. A dm has no epoch.

    A revoked member may hold the keys of the epochs up to `floor`.
    """
    if key_epoch is None:
        return None
    if key_epoch > current:
        return "key_epoch_unknown"
    return "key_epoch_expired" if key_epoch <= max(current - DEFAULT_KEY_EPOCHS, floor) else None


class TopicColumns(NamedTuple):
    """The columns of a topic about its keys."""

    mode: TopicMode
    current: int
    rekey_wanted: bool
    floor: int


def key_state(
    topic: TopicColumns | None, epochs: Iterable[EpochRow], wraps: Sequence[WrapRow]
) -> KeyState | None:
    """Return the keys of a topic, or of one that was deleted while the member has wraps of it."""
    if topic is None and not wraps:
        return None
    columns = TopicColumns("topic", 0, False, 0) if topic is None else topic
    return KeyState(*columns, tuple(epochs), first_of_each(wraps))


def first_of_each(wraps: Sequence[WrapRow]) -> tuple[WrapRow, ...]:
    """Return as many wraps of each epoch as a reply carries, from wraps in the order of their epochs."""
    by_epoch = groupby(wraps, key=lambda wrap: wrap.key_epoch)
    return tuple(one for _, found in by_epoch for one in islice(found, MAX_WRAPS_A_RECIPIENT))


class TopicKeyStore(Protocol):
    """Epochs and wraps of topics. Triggers mark that the next epoch is wanted, in the transaction of an act.

    An epoch is wanted when an active subscriber unsubscribes, and when a subscriber or a member with a wrap
    is revoked or leaves, or has a key revoked. A revocation makes the present epoch the floor of the topic:
    sends under it and earlier ones are refused.
    """

    async def state(
        self, mesh_id: str, topic: str, member_id: str, key_epochs: Collection[int]
    ) -> KeyState | None:
        """Return the keys of a topic as a member sees them, None when there is no such topic.

        Of one that was deleted it returns the epochs that are asked for, while the member has a wrap of them.
        """
        ...

    async def missing(self, mesh_id: str, topic: str, limit: int) -> Sequence[Member]:
        """Return active subscribers without a wrap of the current epoch for their present key.

        Before the first epoch these are all active subscribers.
        """
        ...

    async def create(self, wish: NewEpoch) -> EpochMade | EpochRefused:
        """Make an epoch with its first wraps, in one transaction (`judge_epoch`).

        Wraps for other members than active subscribers and the maker are left out: the member that has left
        meanwhile gets no wrap, so the mark that it has left can be cleared.
        """
        ...

    async def add_wraps(
        self, mesh_id: str, topic: str, member_id: str, wraps: Sequence[WrapRow], most: int
    ) -> Sequence[str] | None:
        """Write wraps of a known epoch by a member; return the recipients of new ones.

        A wrap for a key that no active member has now is left out, and so is one beyond the `most` wraps of
        different wrappers for one key. None: the member is not active, or there is no such epoch.
        """
        ...

    async def want(self, mesh_id: str, topic: str) -> bool | None:
        """Mark that the next epoch is wanted; False before the first one, None: there is no such topic."""
        ...

    async def wanted(self, mesh_id: str, member_id: str | None = None) -> Sequence[str]:
        """Return topics whose next epoch is wanted, those of a member where one is given.

        They are the topics to which it is or was subscribed, or of which it has a wrap.
        """
        ...

    async def holders(
        self, mesh_id: str, topic: str, among: Collection[str], *, subscribed: bool = False
    ) -> Sequence[str]:
        """Return those of some members that are active and have a wrap of any epoch of a topic.

        With `subscribed` only its subscribers: a member that has left a topic is not to make its next epoch.
        """
        ...

    async def audience(self, mesh_id: str, topic: str, among: Collection[str]) -> Sequence[str]:
        """Return those of some members that are active, and subscribe to a topic or have a wrap of it."""
        ...

    async def waiting(self, mesh_id: str, topic: str) -> frozenset[int]:
        """Return the epochs of the messages of a queue that wait for a recipient."""
        ...

    async def is_owed(self, mesh_id: str, topic: str, member_id: str, key_epoch: int) -> bool:
        """Tell whether a message under an epoch was accepted since a member subscribed, or waits for it.

        The latter is about queues: a message that waits is for each of its subscribers.
        """
        ...

    async def want_old(self, made_before: int) -> int:
        """Mark topics whose current epoch was made before a lived time; returns how many, one batch."""
        ...

    async def sweep(self, window: int, made_before: int, most: int = BATCH_TOPICS) -> int:
        """Delete what no message needs any more, of at most `most` epochs; returns how many were touched.

        Of epochs that are not among the last `window` ones or whose topic was deleted, and were made before a
        lived time: the wraps when no delivery under the epoch is owed, and the epoch when no message under it
        is stored. The newest epoch of a deleted topic stays as long as the deletion is known.
        """
        ...
