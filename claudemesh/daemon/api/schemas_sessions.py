"""JSON of the routes for sessions, as msgspec Structs (docs/spec/daemon.md, Sessions)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from claudemesh.daemon.api.schemas import Body, InboxItem, Session

_Reach = Literal["push", "turn", "pull"]
_Activity = Literal["idle", "working", "away"]
# Text without control characters, because people see it in lists.
_LINE = r"^[^\x00-\x1f\x7f-\x9f]*$"
_Short = Annotated[str, Meta(min_length=1, max_length=64, pattern=_LINE)]


class SessionBody(Body):
    """A session to register. `session_id` is the client's own id of it, `cwd` the directory of its project.

    `reach`: it can be woken while idle (push), sees messages at its next turn (turn), or when it asks (pull).
    """

    client: _Short
    reach: _Reach
    name: Session | None = None
    client_version: _Short | None = None
    cwd: Annotated[str, Meta(min_length=1, max_length=4096, pattern=_LINE)] | None = None
    session_id: Annotated[str, Meta(min_length=1, max_length=255, pattern=_LINE)] | None = None
    pid: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None


class SessionHeartbeatBody(Body):
    """Present activity of a session."""

    state: _Activity


class SessionRegistered(Struct):
    """The session. It ends after `lease_s` seconds without a heartbeat or a look at its messages."""

    session_id: str
    name: str
    lease_s: int


class SessionPush(Struct):
    """The push that is due: none, a pointer to messages, or a message with its text.

    `ids` are the messages that it counts, oldest first, and `senders` the verified names of their senders.
    The client proves that the model saw it by marking them: those of a pointer as notified, that of a text as
    shown. One that is not proven is due again after a delay. `count` is the number of messages that wait, of
    which `ids` may hold the oldest only: `through` is then the seq that a proof marks with `/told`.
    """

    form: Literal["none", "pointer", "text"]
    reason: str
    ids: list[str]
    senders: list[str]
    message: InboxItem | None
    count: int
    more: bool
    through: int


class SessionNewsItem(Struct):
    """The messages that the session was not told of: their number, and the verified names of their senders.

    `more`: there are further ones. `through` is the seq of the newest of all, 0 without any.
    """

    count: int
    more: bool
    through: int
    senders: list[str]


class SessionToldBody(Body):
    """The seq of the newest message that the session was told of, as its news has it."""

    through: Annotated[int, Meta(ge=0, le=2**53)]


class SessionEnded(Struct):
    """The session that ended."""

    session_id: str


class SessionItem(Struct):
    """A live session. `lease_left_s` is the time in seconds until its lease ends."""

    session_id: str
    name: str
    client: str
    client_version: str | None
    client_session_id: str | None
    cwd: str | None
    pid: int | None
    reach: _Reach
    state: _Activity
    lease_left_s: int


class SessionPage(Struct):
    """Live sessions by name; pass `next` as `after` to get the next page."""

    items: list[SessionItem]
    next: str | None
