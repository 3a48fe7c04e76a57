"""The done sends in outbox.db, and those of them that wait to be offered to the broker again.

Crash story: a restore is noted before anything is offered. A forgotten send is listed before the next page
is asked about, and removed from the list in the transaction that writes its new ids. So after a crash the
list may be too long, never too short. Offering a send twice is harmless: the broker recognises its id.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import orjson
from msgspec import Struct

from claudemesh.daemon.outbox.lookback import Comparison, DoneSend
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.queries import load_queries
from claudemesh.runtime.sqlite import Database

_Q = load_queries("claudemesh.daemon.sql", "outbox.sql")
_LOST = "forgotten_by_broker: its payload was no longer kept, so it cannot be offered again"


class Restore(Struct, frozen=True):
    """A restore that was noticed. `noticed_ms` is host-lived time; `lost` sends cannot be offered again."""

    noticed_ms: int
    is_scanned: bool
    forgotten: int
    lost: int


class Offer(Struct, frozen=True):
    """A done send with its frozen envelope, on its way to the broker once more."""

    position: int
    id: str
    client_message_id: str
    payload: bytes


class WaitingOffers(Struct, frozen=True):
    """Number of sends that wait to be offered again. `error` is one of the refusals, if there is one."""

    count: int
    refused: int
    error: str | None


class Reaccepted(Struct, frozen=True):
    """A send that was offered again, with the ids that the broker has given it."""

    row_id: str
    broker_message_id: str
    history_id: int


class DoneSends:
    """The done rows of outbox.db."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def at(self, places: Sequence[int]) -> Sequence[DoneSend]:
        """Return the done sends at these distances behind the newest one, as far as they exist."""

        def work(raw: sqlite3.Connection) -> list[DoneSend]:
            found = []
            for place in places:
                row = raw.execute(_Q["done_at"], (place,)).fetchone()
                if row is None:
                    break
                found.append(_done_send(row))
            return found

        return await self._db.run(work)

    async def before(self, last: DoneSend | None, limit: int) -> Sequence[DoneSend]:
        """Return up to `limit` done sends that the broker accepted before `last`, newest first."""
        after = (2**63 - 1, 2**63 - 1) if last is None else (last.history_id, last.rowid)
        rows = await self._db.run(lambda raw: raw.execute(_Q["done_before"], (*after, limit)).fetchall())
        return [_done_send(row) for row in rows]

    async def restore(self) -> Restore | None:
        """Return the last restore that was noticed, or None."""
        row = await self._db.run(lambda raw: raw.execute(_Q["restore_get"]).fetchone())
        return None if row is None else Restore(row[0], bool(row[1]), row[2], row[3])

    async def note_restore(self, lived_ms: int) -> None:
        """Note that the broker's database went back. From now on each start continues the repair."""
        await self._db.transaction(lambda raw: raw.execute(_Q["restore_noticed"], (lived_ms,)))

    async def note_verdict(self, verdict: Comparison) -> None:
        """Put forgotten sends on the list, and write the new ids of sends that were accepted again."""
        offerable = [send for send in verdict.forgotten if send.offerable]
        lost = [send for send in verdict.forgotten if not send.offerable]

        def work(raw: sqlite3.Connection) -> None:
            added = raw.executemany(_Q["reoffer_add"], [(send.id, send.history_id) for send in offerable])
            raw.executemany(_Q["done_note"], [(_LOST, send.id) for send in lost])
            renamed = [
                (broker_message_id, history_id, send.id)
                for send, broker_message_id, history_id in verdict.renamed
            ]
            raw.executemany(_Q["accepted_anew"], renamed)
            raw.execute(_Q["restore_count"], (max(added.rowcount, 0), len(lost)))

        await self._db.transaction(work)

    async def not_waiting(self, sends: Sequence[DoneSend]) -> Sequence[DoneSend]:
        """Return the given sends without those that are on the list already."""
        ids = orjson.dumps([send.id for send in sends]).decode()
        rows = await self._db.run(lambda raw: raw.execute(_Q["reoffer_known"], (ids,)).fetchall())
        known = {row[0] for row in rows}
        return [send for send in sends if send.id not in known]

    async def note_scanned(self) -> None:
        """Note that the broker was asked about every done send."""
        await self._db.transaction(lambda raw: raw.execute(_Q["restore_scanned"]))
        failpoint("restore.after_scan")

    async def offers(self, last: Offer | None, limit: int) -> Sequence[Offer]:
        """Return up to `limit` sends of the list that follow `last`, oldest first."""
        after = (-1, "") if last is None else (last.position, last.id)
        rows = await self._db.run(lambda raw: raw.execute(_Q["reoffer_page"], (*after, limit)).fetchall())
        return [Offer(*row) for row in rows]

    async def waiting(self) -> WaitingOffers:
        """Count the sends on the list. Sends whose payloads were pruned are removed from it first."""

        def work(raw: sqlite3.Connection) -> WaitingOffers:
            for (row_id,) in raw.execute(_Q["reoffer_empty"]).fetchall():
                raw.execute(_Q["done_note"], (_LOST, row_id))
                raw.execute(_Q["reoffer_done"], (row_id,))
            return WaitingOffers(*raw.execute(_Q["reoffer_counts"]).fetchone())

        return await self._db.transaction(work)

    async def settle_offers(
        self,
        accepted: Sequence[Reaccepted],
        refused: Sequence[tuple[str, str]],
        resealed: Sequence[Offer] = (),
    ) -> None:
        """Write the outcomes of offers: new ids, or (row id, reason) of refusals, which are tried again.

        `resealed` are offers with another envelope.
        """

        def work(raw: sqlite3.Connection) -> None:
            for one in accepted:
                raw.execute(_Q["accepted_anew"], (one.broker_message_id, one.history_id, one.row_id))
                raw.execute(_Q["reoffer_done"], (one.row_id,))
            raw.executemany(_Q["done_resealed"], [(offer.payload, offer.id) for offer in resealed])
            for row_id, reason in refused:
                raw.execute(_Q["reoffer_refused"], (reason, row_id))
                raw.execute(_Q["done_note"], (f"reoffer_refused: {reason}", row_id))

        await self._db.transaction(work)


def _done_send(row: Sequence[object]) -> DoneSend:
    rowid, history_id, row_id, client_message_id, broker_message_id, offerable = row
    assert isinstance(rowid, int) and isinstance(history_id, int)
    return DoneSend(
        rowid, history_id, str(row_id), str(client_message_id), str(broker_message_id), bool(offerable)
    )
