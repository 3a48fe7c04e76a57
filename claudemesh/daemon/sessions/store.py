"""Sessions in inbox.db, beside the messages that they are given.

Crash story: a session is written before its registration is answered, so it outlives the daemon. Its end and
the return of its messages are one transaction: after a crash the next start finds the session with a new
lease, or finds it ended and its messages free.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from claudemesh.daemon.sessions.state import ProcessMark, Registration, Session
from claudemesh.runtime.queries import load_queries
from claudemesh.runtime.sqlite import Database

_Q = load_queries("claudemesh.daemon.sql", "sessions.sql")
MAX_NAMES = 1000


class KnownName(Struct, frozen=True):
    """A name that was given. `session_id` is that of the live session that has it."""

    name: str
    session_id: str | None
    about: Registration


class SessionStore:
    """The table of sessions, and the column of the inbox that names the session of a message."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def load(self) -> Sequence[KnownName]:
        """Return all names."""
        rows = await self._db.run(lambda raw: raw.execute(_Q["sessions"]).fetchall())
        return [_known(*row) for row in rows]

    async def save(self, session: Session) -> Sequence[str]:
        """Write a session. Return names that are forgotten, those unused for longest, beyond 1000."""
        about, process = session.about, session.about.process
        values = (
            session.name,
            session.session_id,
            about.client,
            about.client_version,
            about.client_session_id,
            about.cwd,
            process and process.pid,
            process and process.started,
            about.reach,
        )

        def work(raw: sqlite3.Connection) -> list[str]:
            raw.execute(_Q["save"], values)
            return [row[0] for row in raw.execute(_Q["forget"], (MAX_NAMES,)).fetchall()]

        return await self._db.transaction(work)

    async def end(self, names: Sequence[str]) -> None:
        """End sessions, and give the messages that they have not shown back to the host."""

        def work(raw: sqlite3.Connection) -> None:
            for name in names:
                raw.execute(_Q["end"], (name,))
                raw.execute(_Q["untell"], (name,))
                raw.execute(_Q["untell_besides"], (name,))
                raw.execute(_Q["give_back"], (name,))

        await self._db.transaction(work)

    async def give(self, name: str, ids: Sequence[str]) -> None:
        """Give messages for the host that no session has to one session."""
        rows = [(name, one) for one in ids]
        await self._db.transaction(lambda raw: raw.executemany(_Q["give"], rows))


def _known(
    name: str,
    session_id: str | None,
    client: str,
    client_version: str | None,
    client_session_id: str | None,
    cwd: str | None,
    *rest: Any,
) -> KnownName:
    pid, started, reach = rest
    about = Registration(
        client=client,
        reach=reach,
        client_version=client_version,
        cwd=cwd,
        client_session_id=client_session_id,
        process=None if pid is None else ProcessMark(pid, started),
    )
    return KnownName(name, session_id, about)
