"""Sends that are done, as long as their envelopes are kept: what a broker that forgot them is offered."""

from __future__ import annotations

from dataclasses import dataclass

from claudemesh.runtime.queries import load_queries
from claudemesh.runtime.sqlite import Database

_Q = load_queries("claudemesh.daemon.sql", "outbox.sql")


@dataclass(frozen=True, slots=True)
class DoneSend:
    """A done row with its frozen envelope."""

    cursor: int
    id: str
    payload: bytes
    broker_message_id: str


class DoneSends:
    """The done rows of outbox.db."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def after(self, cursor: int, limit: int) -> list[DoneSend]:
        """Return done sends behind a cursor whose envelopes are still here, oldest first."""
        rows = await self._db.run(lambda raw: raw.execute(_Q["done_payloads"], (cursor, limit)).fetchall())
        return [DoneSend(*row) for row in rows]

    async def accepted_anew(self, row_id: str, broker_message_id: str, history_id: int) -> None:
        """Note under which ids the broker has accepted a done send that it had forgotten."""
        values = (broker_message_id, history_id, row_id)
        await self._db.transaction(lambda raw: raw.execute(_Q["accepted_anew"], values))
