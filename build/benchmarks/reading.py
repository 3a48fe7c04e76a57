"""Reading a daemon: many event streams at once, and a page out of a large inbox."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from benchmarks.lab import HERE, Lab, load, received
from benchmarks.size import size
from claudemesh.daemon.inbox.store import InboxStore
from claudemesh.runtime.clock import SystemClock
from tests.support.processes import until

_MESSAGES = size(1600, 64)
_CALLERS = 64
_READERS = size(32, 2)
_PAGES = size(60, 2)
_LARGE = size(1_000_000, 2_000)
_SMALL = 1_000
_PAGE = 500


def fan_out(lab: Lab) -> tuple[float, float]:
    """Messages/s that 32 readers together get of a daemon's events; the ceiling is 32 times one reader's."""
    alone = _read_by(lab, 1)
    return _read_by(lab, _READERS), alone * _READERS


def many_readers(lab: Lab) -> float:
    """Messages/s that 32 readers together get of a daemon's events."""
    return _read_by(lab, _READERS)


def _read_by(lab: Lab, readers: int) -> float:
    before = received(lab.bob)
    command = [sys.executable, str(HERE / "listen.py"), str(lab.bob.sock), str(readers), str(_MESSAGES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as listening:
        assert listening.stdout is not None
        listening.stdout.readline()
        load(lab.alice, "bob", _CALLERS, _MESSAGES)
        seconds = float(listening.stdout.readline())
    until(lambda: received(lab.bob) >= before + _MESSAGES, "all of it has arrived")
    return readers * _MESSAGES / seconds


def page(lab: Lab) -> tuple[float, float]:
    """The middle page of 500 out of a million messages; the ceiling is the same out of a thousand. Ms."""
    if lab.inboxes is None:
        folder = Path(tempfile.mkdtemp(prefix="cm-", dir=lab.live.root))
        lab.inboxes = (_filled(folder / "large.db", _LARGE), _filled(folder / "small.db", _SMALL))
    large, small = lab.inboxes
    return asyncio.run(_page_ms(large, _LARGE)), asyncio.run(_page_ms(small, _SMALL))


def _filled(path: Path, rows: int) -> Path:
    async def make() -> None:
        await (await InboxStore.open(path, SystemClock())).close()

    asyncio.run(make())
    fill_inbox(path, rows)
    return path


def fill_inbox(path: Path, rows: int) -> None:
    """Write unread messages into an inbox that no daemon has open."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            """
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
            INSERT INTO inbox (seq, id, client_message_id, sender_member_id, broker_message_id, history_id,
                               mesh, kind, sender_pubkey, sender_name, body, priority, received_at)
            SELECT i, printf('%026d', i), printf('%026d', i), 'member', printf('%026d', i), i, 'demo',
                   'dm', 'key', 'alice', printf('%.200c', 'x'), 'next', 1700000000000 + i FROM n
            """,
            (rows,),
        )
        database.commit()


async def _page_ms(path: Path, rows: int) -> float:
    store = await InboxStore.open(path, SystemClock())
    times = []
    try:
        for _ in range(_PAGES):
            started = time.perf_counter()
            items, _ = await store.page(limit=_PAGE, after=rows // 2 - _PAGE)
            times.append(time.perf_counter() - started)
            assert len(items) == _PAGE
    finally:
        await store.close()
    return sorted(times)[_PAGES // 2] * 1000
