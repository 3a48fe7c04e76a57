"""Detection of a restored broker database: the choice of done sends to ask about, and the verdict on the
answer.

A database that was restored from a copy lacks the sends that were accepted after the copy. The broker
cannot see that by itself, because its notes are restored too. Each daemon knows which of its sends the
broker has accepted, so each asks with `send_status`. Everything here is a plain function over plain data.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from claudemesh.protocol.ids import ulid_time_ms
from claudemesh.protocol.replies import SendStatuses

# Largest number of ids in the request at each link-up.
MAX_ASKED = 64
_NEWEST = 16
_FARTHEST = 1 << 20
_DAY_MS = 86_400_000
# Margin before the end of the dedupe window. In it no id is asked about, because a change of the broker's
# clock may let it delete a dedupe row early.
_WINDOW_MARGIN_MS = _DAY_MS


class DoneSend(Struct, frozen=True):
    """A send that the broker has accepted, under its ids. `offerable`: its envelope is still kept."""

    rowid: int
    history_id: int
    id: str
    client_message_id: str
    broker_message_id: str
    offerable: bool


class Comparison(Struct, frozen=True):
    """The broker's answer, sorted. It knows `renamed` sends under the given ids instead of their old ones."""

    forgotten: tuple[DoneSend, ...] = ()
    renamed: tuple[tuple[DoneSend, str, int], ...] = ()

    @property
    def went_back(self) -> bool:
        """Whether the broker's database has been replaced by an older copy."""
        return bool(self.forgotten or self.renamed)


def places_to_ask() -> Sequence[int]:
    """Return the distances behind the newest done send at which to ask: 16 in a row, then at growing
    intervals.

    For a consistent copy the newest send is enough. The others cover commits that overtook each other, and
    a database that was assembled from several copies.
    """
    places = list(range(_NEWEST))
    step = 1
    while places[-1] + step <= _FARTHEST and len(places) < MAX_ASKED:
        places.append(places[-1] + step)
        step *= 2
    return places


def can_be_asked(send: DoneSend, broker_now_ms: int, window_days: int | None) -> bool:
    """Whether the broker must still know a send. Its age is in broker time: the broker made its ULID.

    After the dedupe window the broker deletes the id regularly, and its absence means nothing.
    """
    if window_days is None:
        return True
    age_ms = broker_now_ms - ulid_time_ms(send.broker_message_id)
    return age_ms < window_days * _DAY_MS - _WINDOW_MARGIN_MS


def judge(asked: Sequence[DoneSend], found: SendStatuses) -> Comparison:
    """Sort the asked sends by the broker's answer, which covers each of them."""
    forgotten: list[DoneSend] = []
    renamed: list[tuple[DoneSend, str, int]] = []
    for send in asked:
        known = found[send.client_message_id]
        if known is None:
            forgotten.append(send)
        elif known.broker_message_id != send.broker_message_id:
            renamed.append((send, known.broker_message_id, known.history_id))
    return Comparison(tuple(forgotten), tuple(renamed))
