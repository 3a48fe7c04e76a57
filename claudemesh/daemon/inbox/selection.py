"""Selection of messages as a statement that uses an index (docs/spec/daemon.md, Inbox).

The statement holds only the conditions in use. A condition that a value can switch off (`:x IS NULL OR …`)
would keep SQLite from using an index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from claudemesh.protocol.ids import HEX_32

# The first message of that time or later. The wall clock may have been set back, so times are not in seq
# order.
_FIRST_SINCE = "(SELECT min(seq) FROM inbox INDEXED BY inbox_received WHERE received_at >= :since)"


@dataclass(frozen=True, slots=True)
class Selection:
    """Filter and order of messages. `sender` is a name or a key."""

    since_ms: int | None = None
    topic: str | None = None
    sender: str | None = None
    unread: bool = False
    mentioned: bool = False
    # Neither shown nor acknowledged.
    unseen: bool = False
    # The session that the messages are for.
    session: str | None = None
    # Whether messages for the host are for the session too.
    with_host: bool = False
    newest_first: bool = False
    # Whether messages without a text are left out, or only they are wanted.
    readable: bool = False
    sealed: bool = False

    def statement(self, after: int | None, limit: int) -> tuple[str, dict[str, Any]]:
        """Return the statement, and its values, for up to `limit` messages that follow the seq `after`."""
        conditions = ["TRUE"]
        if after is not None:
            conditions.append("seq < :after" if self.newest_first else "seq > :after")
        if self.topic is not None:
            conditions.append("topic = :topic")
        if self.sender is not None:
            is_key = HEX_32.fullmatch(self.sender) is not None
            conditions.append("sender_pubkey = :sender" if is_key else "sender_name = :sender COLLATE NOCASE")
        if self.unread:
            conditions.append("acked_at IS NULL")
        if self.unseen:
            conditions.append("shown_at IS NULL AND acked_at IS NULL")
        if self.mentioned:
            conditions.append("mentioned")
        if self.session is not None:
            own = "for_session = :session"
            conditions.append(f"({own} OR to_session IS NULL)" if self.with_host else own)
        if self.readable:
            conditions.append("body IS NOT NULL")
        if self.sealed:
            conditions.append("body IS NULL")
        if self.since_ms is not None:
            # The unary plus keeps SQLite from using the index by time, after which it would have to sort by
            # seq.
            conditions.append("+received_at >= :since")
            if after is None or self.newest_first:
                conditions.append(f"seq >= {_FIRST_SINCE}")
        order = "DESC" if self.newest_first else "ASC"
        where = " AND ".join(conditions)
        text = f"SELECT * FROM inbox WHERE {where} ORDER BY seq {order} LIMIT :limit"  # noqa: S608 - all ours
        values = {"after": after, "topic": self.topic, "sender": self.sender, "since": self.since_ms}
        return text, {**values, "session": self.session, "limit": limit}


ALL = Selection()
