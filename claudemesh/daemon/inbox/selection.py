"""Selection of messages as a statement that uses an index (docs/spec/daemon.md, Inbox).

The statement holds only the conditions in use. A condition that a value can switch off (`:x IS NULL OR …`)
would keep SQLite from using an index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import orjson
from msgspec import Struct

from claudemesh.protocol.ids import HEX_32

# None of them, those that no session has, or all.
HostMessages: TypeAlias = Literal["none", "free", "all"]

# The first message of that time or later. The wall clock may have been set back, so times are not in seq
# order.
_FIRST_SINCE = "(SELECT min(seq) FROM inbox INDEXED BY inbox_received WHERE received_at >= :since)"

# `told` is about the session that has a message. Others are told of it too where each lists it.
_UNTOLD_TO_IT = (
    "NOT (told AND for_session IS :session) AND NOT EXISTS "
    "(SELECT 1 FROM inbox_told AS t WHERE t.session = :session AND t.inbox_id = inbox.id)"
)


class Selection(Struct, frozen=True):
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
    # The messages for the host that are for the session too.
    host: HostMessages = "none"
    # Whether messages that their session was told of are left out.
    untold: bool = False
    # The only ids that are wanted.
    ids: Sequence[str] | None = None
    # Members whose messages are left out.
    without: Sequence[str] = ()
    newest_first: bool = False
    # Whether messages without a text, and those read back from the history, are left out.
    readable: bool = False
    # Whether only messages without a text are wanted.
    sealed: bool = False

    def statement(self, after: int | None, limit: int, columns: str = "*") -> tuple[str, dict[str, Any]]:
        """Return the statement, and its values, for up to `limit` messages that follow the seq `after`."""
        order = f"ORDER BY seq {'DESC' if self.newest_first else 'ASC'} LIMIT :limit"
        # The table's own index of each part gives the order; one condition for both would have to be sorted.
        parts = [
            f"SELECT {columns} FROM inbox {index} WHERE {' AND '.join(part)} {order}"  # noqa: S608 - all ours
            for index, part in self._parts(after)
        ]
        [text, *more] = parts
        if more:
            text = f"{' UNION ALL '.join(f'SELECT * FROM ({part})' for part in parts)} {order}"  # noqa: S608 - all ours
        values = {"after": after, "topic": self.topic, "sender": self.sender, "since": self.since_ms}
        lists = {"without": list(self.without), "ids": list(self.ids or ())}
        values |= {name: orjson.dumps(one).decode() for name, one in lists.items()}
        return text, {**values, "session": self.session, "limit": limit}

    def summary(self, limit: int) -> tuple[str, dict[str, Any]]:
        """Return the statement for number, last seq and sender names of the first `limit` messages."""
        rows, values = self.statement(None, limit, "seq, sender_name")
        text = f"SELECT count(*), max(seq), json_group_array(DISTINCT sender_name) FROM ({rows})"  # noqa: S608
        return text, values

    def ids_up_to(self, through: int, limit: int) -> tuple[str, dict[str, Any]]:
        """Return the statement for the ids of the first `limit` messages, as far as the seq `through`."""
        rows, values = self.statement(None, limit, "seq, id")
        text = f"SELECT id FROM ({rows}) WHERE seq <= :through"  # noqa: S608 - all ours
        return text, {**values, "through": through}

    def _parts(self, after: int | None) -> Iterator[tuple[str, list[str]]]:
        """Return each part of the inbox that the selection is made of: its index, if one is forced, and its
        conditions."""
        shared = self._conditions(after)
        if self.session is None:
            yield "", shared
            return
        if self.host == "all":
            untold = [_UNTOLD_TO_IT] if self.untold else []
            yield "", [*shared, "(for_session = :session OR to_session IS NULL)", *untold]
            return
        untold = ["told = 0"] if self.untold else []
        # SQLite would take the index of all unseen messages, and read those of other sessions too.
        index = "INDEXED BY inbox_untold" if self.untold and self.unseen else ""
        yield index, [*shared, "for_session = :session", *untold]
        if self.host == "free":
            free = "for_session IS NULL AND shown_at IS NULL AND acked_at IS NULL AND body IS NOT NULL"
            yield "INDEXED BY inbox_for_host", [*shared, free]

    def _conditions(self, after: int | None) -> list[str]:
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
        if self.ids is not None:
            conditions.append("id IN (SELECT value FROM json_each(:ids))")
        if self.without:
            conditions.append("sender_member_id NOT IN (SELECT value FROM json_each(:without))")
        if self.readable:
            conditions.append("body IS NOT NULL AND NOT recovered")
        if self.sealed:
            conditions.append("body IS NULL")
        if self.since_ms is not None:
            # The unary plus keeps SQLite from using the index by time, after which it would have to sort by
            # seq.
            conditions.append("+received_at >= :since")
            if after is None or self.newest_first:
                conditions.append(f"seq >= {_FIRST_SINCE}")
        return conditions


ALL = Selection()
