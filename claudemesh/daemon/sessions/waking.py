"""Waking of a session: the push that tells it of its messages, decided from plain data.

A push is a wake-up and never a delivery. A message that was pushed and is not shown is pushed again after the
delays of `RETRY_S`, then it is left for the next turn. See docs/spec/daemon.md, Waking. Times are seconds of
the monotonic clock that counts suspended time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from claudemesh.daemon.settings import Trust
from claudemesh.protocol.session_cards import Activity, Reach

Form: TypeAlias = Literal["none", "pointer", "text"]
# Reasons for which a message wakes no session.
Hold: TypeAlias = Literal["mute", "inbox", "acknowledgement", "loop", "topic"]
# Reasons of a decision.
Reason: TypeAlias = Literal["due", "reach", "away", "in_flight", "empty", "held", "later", "left"]

# Delays behind the first push and behind each further one.
RETRY_S: Final = (30.0, 120.0, 600.0)
# A client that drops a push silently holds up further ones for this long.
IN_FLIGHT_S: Final = RETRY_S[0]
# The longest text, in bytes of UTF-8, that a push holds itself.
MAX_TEXT_BYTES: Final = 2048
# Automatic answers in a row that led to a message, over any number of sessions.
MAX_HOPS: Final = 20


class Waiting(Struct, frozen=True, kw_only=True):
    """A message for a session that is not shown.

    `trust` is that of the sender, `size` the bytes of its text in UTF-8. `is_whole`: the text is all that the
    message has, without files and not cut. `hops` is the number of automatic answers that led to it.
    `in_loop`: it arrived beyond the automatic turns of its two sessions. `pushed_at` are the
    times of its pushes, oldest first.
    """

    id: str
    trust: Trust
    size: int
    kind: str = "dm"
    is_mentioned: bool = False
    intent: str | None = None
    is_whole: bool = True
    hops: int = 0
    in_loop: bool = False
    pushed_at: tuple[float, ...] = ()


class Pushable(Struct, frozen=True, kw_only=True):
    """A session as far as pushes depend on it.

    `in_flight_since` is the time of the last push, until the client has proven that its model saw it.
    """

    reach: Reach
    activity: Activity
    in_flight_since: float | None = None


class Push(Struct, frozen=True):
    """The decision: the form of the push, its reason, and the messages that it counts, oldest first.

    A text has the text of the one message in `ids`. `again_s` is the time until the decision is taken again
    if nothing changes before, None for never.
    """

    form: Form
    reason: Reason
    ids: tuple[str, ...] = ()
    again_s: float | None = None


def hold_of(message: Waiting) -> Hold | None:
    """Return the reason for which a message wakes no session, None when it may wake one.

    A post in a topic wakes the members that it mentions.
    """
    if message.trust != "wake":
        return message.trust
    if message.intent == "ack":
        return "acknowledgement"
    if message.in_loop or message.hops > MAX_HOPS:
        return "loop"
    if message.kind == "topic" and not message.is_mentioned:
        return "topic"
    return None


def decide(waiting: Sequence[Waiting], session: Pushable, now: float) -> Push:
    """Return the push for a session whose messages, oldest first, are not shown."""
    if session.reach != "push":
        return Push("none", "reach")
    if session.activity == "away":
        return Push("none", "away")
    if not waiting:
        return Push("none", "empty")
    free = [one for one in waiting if hold_of(one) is None]
    if not free:
        return Push("none", "held")
    if session.in_flight_since is not None:
        left = session.in_flight_since + IN_FLIGHT_S - now
        if left > 0:
            return Push("none", "in_flight", again_s=left)
    delays = [delay for one in free if (delay := _delay(one, now)) is not None]
    if not delays:
        return Push("none", "left")
    if min(delays) > 0:
        return Push("none", "later", again_s=min(delays))
    form: Form = "text" if len(free) == 1 and _fits(free[0]) else "pointer"
    return Push(form, "due", tuple(one.id for one in free), again_s=IN_FLIGHT_S)


def _delay(message: Waiting, now: float) -> float | None:
    """Return the time until a message is pushed, 0 for now, None when it is left for the next turn."""
    count = len(message.pushed_at)
    if count == 0:
        return 0.0
    if count > len(RETRY_S):
        return None
    return max(0.0, message.pushed_at[-1] + RETRY_S[count - 1] - now)


def _fits(message: Waiting) -> bool:
    return message.is_whole and message.size <= MAX_TEXT_BYTES
