"""Sessions as plain data, and the rules of their names, their ends and their messages.

See docs/spec/daemon.md, Sessions. Times are seconds of the monotonic clock that counts suspended time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from msgspec import Struct

from claudemesh.protocol.ids import SLUG
from claudemesh.protocol.session_cards import Activity, Reach

LEASE_S: Final = 90.0
MAX_SESSIONS: Final = 256
_LONGEST_NAME: Final = 63
# The better the reach, the sooner a session sees a message.
_BY_REACH: Final[Mapping[str, int]] = {"push": 2, "turn": 1, "pull": 0}
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9._-]+")


class ProcessMark(Struct, frozen=True):
    """A process by its pid and its start time: a pid alone may belong to another process later.

    `started` is None where the process cannot be seen. The lease alone then decides.
    """

    pid: int
    started: int | None


class Registration(Struct, frozen=True, kw_only=True):
    """A session as its client describes it. `client_session_id` is the client's own id of it."""

    client: str
    reach: Reach
    name: str | None = None
    client_version: str | None = None
    cwd: str | None = None
    client_session_id: str | None = None
    process: ProcessMark | None = None

    @property
    def wanted_name(self) -> str:
        """The name to which the session has the first claim, made of its directory if none is given."""
        directory = (self.cwd or "").rstrip("/").rpartition("/")[2]
        return self.name or as_name(directory) or as_name(self.client) or "session"


class Session(Struct, frozen=True, kw_only=True):
    """A live session."""

    session_id: str
    name: str
    about: Registration
    activity: Activity
    expires_at: float
    active_at: float


def as_name(text: str) -> str:
    """Return a text as the name of a session, or "" when nothing of it can be in one."""
    name = _NOT_IN_NAMES.sub("-", text.lower()).strip("._-")[:_LONGEST_NAME]
    return name if SLUG.fullmatch(name) else ""


def choose_name(about: Registration, known: Mapping[str, str | None], live: Iterable[str]) -> str:
    """Return the name of a new session: its own one, or with -2, -3 and so on.

    `known` maps each name that was given to the directory of its session. A name that is not in use goes to
    the directory that had it, and to no other one.
    """
    in_use = frozenset(live)
    free = [name for name in _variants(about.wanted_name, len(known) + 2) if name not in in_use]
    if about.cwd is not None:
        own = [name for name in free if known.get(name) == about.cwd]
        if own:
            return own[0]
    return next(name for name in free if known.get(name) is None)


def _variants(name: str, count: int) -> Iterator[str]:
    yield name
    for number in range(2, count + 2):
        mark = f"-{number}"
        yield name[: _LONGEST_NAME - len(mark)] + mark


def same_session(sessions: Iterable[Session], about: Registration) -> Session | None:
    """Return the live session that registers again, None for a new one.

    It has the same process, or the same id at the same client in the same directory.
    """
    for session in sessions:
        other = session.about
        if other.client != about.client or other.cwd != about.cwd:
            continue
        if about.process is not None and other.process is not None:
            if about.process == other.process:
                return session
        elif about.client_session_id is not None and other.client_session_id == about.client_session_id:
            return session
    return None


def has_ended(session: Session, now: float, is_running: Callable[[ProcessMark], bool]) -> bool:
    """Whether a session has ended: its lease has run out, or its process is gone."""
    process = session.about.process
    return now >= session.expires_at or (process is not None and not is_running(process))


def receiver(sessions: Iterable[Session], asking: Session) -> Session:
    """Return the session that gets the messages for the host, when `asking` asks for its messages.

    An idle one with the best reach comes first, then the one that was active last.
    """
    present = [one for one in sessions if one.activity != "away" or one == asking]

    def claim(one: Session) -> tuple[bool, int, float, bool]:
        is_idle = one.activity == "idle"
        return is_idle, _BY_REACH[one.about.reach] if is_idle else 0, one.active_at, one == asking

    return max(present, key=claim)
