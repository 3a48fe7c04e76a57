"""Messages that their session was not told of, in inbox.db: a summary of them, and the note that it was told.

A host that was left alone for a while has thousands. The summary reads an index, and the session that was
told of them is given those for the host.

Crash story: a session is told before that is noted. A crash between the two tells it once more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

import orjson
from msgspec import Struct

from claudemesh.daemon.inbox.selection import Selection
from claudemesh.runtime.queries import load_queries
from claudemesh.runtime.sqlite import Database

_Q = load_queries("claudemesh.daemon.sql", "inbox.sql")
# The most that a summary counts, and the rows of one transaction of the note.
MOST_COUNTED: Final = 1000
_AT_ONCE: Final = 1000


class Summary(Struct, frozen=True):
    """A number of messages; `more` when there are further ones. `through` is the seq of the newest of all,
    `senders` are the verified names of the senders of those that are counted."""

    count: int
    more: bool
    through: int
    senders: Sequence[str]


class UntoldMessages:
    """The messages of a selection, without their texts."""

    def __init__(self, database: Database, on_noted: Callable[[], None]) -> None:
        """`on_noted` is called when receipts may be due."""
        self._db = database
        self._on_noted = on_noted

    async def summary(self, chosen: Selection) -> Summary:
        """Return the summary of a selection. Of more than 1000 messages the oldest are counted."""
        text, values = chosen.summary(MOST_COUNTED + 1)

        def work(raw: sqlite3.Connection) -> tuple[int, int | None, str]:
            count, through, names = raw.execute(text, values).fetchone()
            if count > MOST_COUNTED:
                [through] = raw.execute(_Q["newest_seq"]).fetchone()
            return count, through, names

        count, through, names = await self._db.run(work)
        return Summary(
            min(count, MOST_COUNTED), count > MOST_COUNTED, through or 0, sorted(orjson.loads(names))
        )

    async def give(self, chosen: Selection, through: int) -> bool:
        """Give the session of a selection the oldest 1000 messages for the host that no session has, as far
        as a seq. Return whether there may be further ones."""
        if chosen.host != "free":
            return False
        without = orjson.dumps(list(chosen.without)).decode()
        named = {"session": chosen.session, "through": through, "without": without, "limit": _AT_ONCE}
        count = await self._db.transaction(lambda raw: raw.execute(_Q["give_oldest"], named).rowcount)
        return count == _AT_ONCE

    async def note(self, chosen: Selection, through: int, now_ms: int) -> bool:
        """Note that a session was told of the oldest 1000 messages of a selection up to a seq.

        Those for the host are the session's then, unless another one has them. Return whether there may be
        further ones.
        """
        text, values = chosen.ids_up_to(through, _AT_ONCE)

        def work(raw: sqlite3.Connection) -> int:
            ids = [row[0] for row in raw.execute(text, values)]
            named = {"ids": orjson.dumps(ids).decode(), "session": chosen.session, "now": now_ms}
            named["gives"] = chosen.host == "free"
            raw.execute(_Q["mark_told"], named)
            raw.execute(_Q["told_besides"], named)
            return len(ids)

        count = await self._db.transaction(work)
        self._on_noted()
        return count == _AT_ONCE
