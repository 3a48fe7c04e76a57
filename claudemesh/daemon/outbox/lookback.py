"""Questions about done sends, and the verdict on the answer: has the broker's database gone back?

A database that was restored from any copy lacks what was accepted after the copy. The broker cannot know
that by itself, because whatever it notes is restored with it. Each daemon knows what the broker accepted from
it, so each asks with `send_status`. Everything here is a plain function over plain data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from claudemesh.protocol.ids import ulid_time_ms
from claudemesh.protocol.replies import SendStatuses

# One question at each link-up: at most so many ids.
MAX_ASKED = 64
_NEWEST = 16
_FARTHEST = 1 << 20
_DAY_MS = 86_400_000
# A dedupe row may be swept a little before its time when the broker's clock is set: those ids are not asked.
_WINDOW_MARGIN_MS = _DAY_MS


@dataclass(frozen=True, slots=True)
class DoneSend:
    """A send that the broker has accepted, under its ids. `offerable`: its envelope is still kept."""

    rowid: int
    history_id: int
    id: str
    client_message_id: str
    broker_message_id: str
    offerable: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The broker's answer, sorted. `renamed` sends are known under the given ids, not their old ones."""

    forgotten: tuple[DoneSend, ...] = ()
    renamed: tuple[tuple[DoneSend, str, int], ...] = ()

    @property
    def went_back(self) -> bool:
        """Whether the broker's database is an older one than it was."""
        return bool(self.forgotten or self.renamed)


def places_to_ask() -> Sequence[int]:
    """Return how far behind the newest done send the asked ones stand: 16 in a row, then ever farther apart.

    The newest one alone decides for a copy in good order. The others cover commits that overtook each
    other, and a database put together from several copies.
    """
    places = list(range(_NEWEST))
    step = 1
    while places[-1] + step <= _FARTHEST and len(places) < MAX_ASKED:
        places.append(places[-1] + step)
        step *= 2
    return places


def can_be_asked(send: DoneSend, broker_now_ms: int, window_days: int | None) -> bool:
    """Whether the broker must still know a send. Its age is in broker time: the broker minted the ULID.

    Past the dedupe window the broker has swept the id in good order, and its absence says nothing.
    """
    if window_days is None:
        return True
    age_ms = broker_now_ms - ulid_time_ms(send.broker_message_id)
    return age_ms < window_days * _DAY_MS - _WINDOW_MARGIN_MS


def judge(asked: Sequence[DoneSend], found: SendStatuses) -> Verdict:
    """Sort what the broker answered; each of these sends is in the answer."""
    forgotten: list[DoneSend] = []
    renamed: list[tuple[DoneSend, str, int]] = []
    for send in asked:
        known = found[send.client_message_id]
        if known is None:
            forgotten.append(send)
        elif known.broker_message_id != send.broker_message_id:
            renamed.append((send, known.broker_message_id, known.history_id))
    return Verdict(tuple(forgotten), tuple(renamed))
