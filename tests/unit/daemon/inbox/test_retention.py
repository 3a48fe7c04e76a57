"""Received messages are kept for the retention in time that the host has lived through."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from claudemesh.daemon.housekeeping import Housekeeping
from claudemesh.daemon.inbox.store import InboxRow, InboxStore
from claudemesh.daemon.outbox.age import BrokerTime, OutboxClocks
from claudemesh.daemon.outbox.store import OutboxStore
from claudemesh.daemon.settings import load_settings
from claudemesh.protocol.features import Features
from claudemesh.runtime.lived import LivedClock
from claudemesh.runtime.migrations import load_migrations
from claudemesh.runtime.sqlite import Database
from tests.support.clock import ManualClock
from tests.support.inbox import inbox_row

DAY_H = 24
JUMPS = pytest.mark.parametrize("days", [31, 365, 12 * 365, -31, -365, -56 * 365])
FEATURES = Features(
    dedupe_mode="retention_scoped",
    dedupe_retention_days=60,
    tombstone_days=None,
    inline_bytes=65_536,
    blob_bytes=1_000_000,
    default_policy="prefer_newest",
    key_epochs=None,
    rotated_event=False,
)


def row(number: int, clock: ManualClock) -> InboxRow:
    """A message from alice."""
    return inbox_row(
        id=f"id{number}",
        client_message_id=f"client{number}",
        broker_message_id=f"broker{number}",
        history_id=number,
        received_at=clock.wall_ms(),
    )


class Host:
    """An inbox and the housekeeping that keeps it small."""

    def __init__(
        self, inbox: InboxStore, outbox: OutboxStore, clock: ManualClock, lived: LivedClock, root: Path
    ) -> None:
        self.inbox = inbox
        self.clock = clock
        clocks = OutboxClocks(clock, lived, BrokerTime(clock))
        self._keeping = Housekeeping(
            outbox, inbox, clocks, load_settings(root / "config.toml"), lambda row_ids: None
        )

    def reached(self) -> None:
        """The broker has been reached: it remembers ids for 60 days."""
        self._keeping.link_up(FEATURES)

    async def tidied(self) -> list[str]:
        """Let housekeeping do its work; the ids that are left."""
        await self._keeping.tidy()
        items, _ = await self.inbox.page(limit=500)
        return [item["id"] for item in items]


@asynccontextmanager
async def host(root: Path, clock: ManualClock, lived: LivedClock | None = None) -> AsyncGenerator[Host]:
    lived = lived or LivedClock(clock)
    inbox = await InboxStore.open(root / "inbox.db", clock, None, lived)
    outbox = await OutboxStore.open(root / "outbox.db")
    try:
        yield Host(inbox, outbox, clock, lived, root)
    finally:
        await inbox.close()
        await outbox.close()


@JUMPS
async def test_no_message_goes_because_the_wall_clock_jumps(tmp_path: Path, days: float) -> None:
    """Read or unread, whether it jumps while the daemon runs or before it starts again."""
    clock = ManualClock()
    async with host(tmp_path, clock) as bob:
        await bob.inbox.insert([row(number, clock) for number in range(50)])
        await bob.inbox.mark([f"id{number}" for number in range(25)], "acked", clock.wall_ms())
        clock.jump(hours=days * DAY_H)
        assert len(await bob.tidied()) == 50
    async with host(tmp_path, clock) as bob:
        assert len(await bob.tidied()) == 50


async def test_messages_go_when_their_retention_was_lived_through(tmp_path: Path) -> None:
    """Read and unread ones alike; what came later stays for its own time."""
    clock = ManualClock()
    async with host(tmp_path, clock) as bob:
        await bob.inbox.insert([row(1, clock), row(2, clock)])
        await bob.inbox.mark(["id1"], "acked", clock.wall_ms())
        clock.advance(hours=10 * DAY_H)
        await bob.inbox.insert([row(3, clock)])
        clock.advance(hours=20 * DAY_H)
        assert await bob.tidied() == ["id1", "id2", "id3"]
        clock.advance(seconds=1)
        assert await bob.tidied() == ["id3"]


async def test_a_clock_behind_at_receipt_and_set_right_later_costs_nothing(tmp_path: Path) -> None:
    """A host without a real-time clock receives in 1970 and learns the date afterwards."""
    clock = ManualClock(wall_ms=60_000)
    async with host(tmp_path, clock) as bob:
        await bob.inbox.insert([row(1, clock)])
        clock.jump(hours=56 * 365 * DAY_H)
        assert await bob.tidied() == ["id1"]


async def test_a_pruned_id_is_remembered_for_the_brokers_window_in_lived_time(tmp_path: Path) -> None:
    """A wall clock that jumps lets no message in a second time; the time itself does."""
    clock = ManualClock()
    async with host(tmp_path, clock) as bob:
        bob.reached()
        await bob.inbox.insert([row(1, clock)])
        clock.advance(hours=31 * DAY_H)
        assert await bob.tidied() == []
        clock.jump(hours=20 * 365 * DAY_H)
        assert await bob.tidied() == []
        assert await bob.inbox.insert([row(1, clock)]) == [None]
        clock.advance(hours=61 * DAY_H)
        assert await bob.tidied() == []
        assert await bob.inbox.insert([row(1, clock)]) != [None]


async def test_a_pruned_id_in_a_batch_keeps_no_other_message_out(tmp_path: Path) -> None:
    """One that was pruned, one that is kept, one that comes twice and one that is new."""
    clock = ManualClock()
    async with host(tmp_path, clock) as one:
        one.reached()
        await one.inbox.insert([row(1, clock)])
        clock.advance(hours=31 * DAY_H)
        assert await one.tidied() == []
        await one.inbox.insert([row(2, clock)])
        again = [msgspec.structs.replace(row(number, clock), id=f"again{number}") for number in (1, 2, 3)]
        first, second, third, fourth = await one.inbox.insert([*again, row(3, clock)])
        assert (first, second, fourth) == (None, None, None) and third is not None
        assert await one.tidied() == ["id2", "again3"]


async def test_messages_of_an_older_schema_are_as_old_as_the_upgrade(tmp_path: Path) -> None:
    """None goes at the first start, however old its wall time says it is."""
    clock = ManualClock()
    old = await Database.open(tmp_path / "inbox.db", load_migrations("claudemesh.daemon.sql.inbox")[:2])
    await old.transaction(
        lambda raw: raw.execute(
            "INSERT INTO inbox (id, client_message_id, sender_member_id, mesh, kind, sender_pubkey,"
            " sender_name, priority, received_at)"
            " VALUES ('id1', 'c', 'alice', 'demo', 'dm', '00', 'alice', 'next', 1000)"
        )
    )
    await old.close()
    clock.advance(hours=500 * DAY_H)
    async with host(tmp_path, clock, LivedClock(clock)) as bob:
        assert await bob.tidied() == ["id1"]
        clock.advance(hours=31 * DAY_H)
        assert await bob.tidied() == []


async def test_a_lost_clock_file_goes_on_from_the_newest_stamp(tmp_path: Path) -> None:
    """A clock that begins at zero again must not stamp new messages older than those before them."""
    clock = ManualClock()
    async with host(tmp_path, clock) as bob:
        clock.advance(hours=40 * DAY_H)
        await bob.inbox.insert([row(1, clock)])
    async with host(tmp_path, clock, LivedClock(clock)) as bob:
        clock.advance(hours=29 * DAY_H)
        assert await bob.tidied() == ["id1"]
        clock.advance(hours=2 * DAY_H)
        assert await bob.tidied() == []


async def test_an_item_does_not_show_the_lived_time(tmp_path: Path) -> None:
    """It is a position of this host's own clock."""
    clock = ManualClock()
    async with host(tmp_path, clock) as bob:
        await bob.inbox.insert([row(1, clock)])
        [item], _ = await bob.inbox.page()
        assert "lived_ms" not in item
