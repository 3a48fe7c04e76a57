"""Selections from the inbox and the outbox: the right rows in the right order, by an index."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.daemon.inbox.selection import Selection
from claudemesh.daemon.outbox.rows import page_statement
from claudemesh.daemon.outbox.states import Status
from claudemesh.runtime.migrations import load_migrations
from claudemesh.runtime.queries import load_queries

KEYS = {"Ann": "aa" * 32, "bob": "bb" * 32}


def empty(name: str) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    for migration in load_migrations(f"claudemesh.daemon.sql.{name}"):
        database.executescript(migration.sql)
    return database


def fill(database: sqlite3.Connection, rows: list[dict[str, Any]]) -> None:
    database.executemany(
        """
        INSERT INTO inbox (seq, id, client_message_id, sender_member_id, mesh, kind, topic, sender_pubkey,
                           sender_name, priority, received_at, acked_at)
        VALUES (:seq, :seq, :seq, 'member', 'demo', 'dm', :topic, :key,
                :name, 'next', :received_at, :acked_at)
        """,
        rows,
    )


@st.composite
def inboxes(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A few messages whose clock may have stepped back."""
    names = draw(st.lists(st.sampled_from(sorted(KEYS)), max_size=12))
    return [
        {
            "seq": seq,
            "topic": draw(st.sampled_from([None, "all", "builds"])),
            "name": name,
            "key": KEYS[name],
            "received_at": draw(st.integers(1, 6)),
            "acked_at": draw(st.sampled_from([None, 9])),
        }
        for seq, name in enumerate(names, 1)
    ]


SELECTIONS = st.builds(
    Selection,
    since_ms=st.none() | st.integers(0, 7),
    topic=st.sampled_from([None, "all", "builds"]),
    sender=st.sampled_from([None, "ann", "Bob", "bb" * 32]),
    unread=st.booleans(),
    unseen=st.booleans(),
    newest_first=st.booleans(),
)


def is_chosen(row: dict[str, Any], chosen: Selection) -> bool:
    return (
        (chosen.since_ms is None or row["received_at"] >= chosen.since_ms)
        and chosen.topic in (None, row["topic"])
        and chosen.sender in (None, row["key"], *({chosen.sender} if _same(chosen, row) else ()))
        and not ((chosen.unread or chosen.unseen) and row["acked_at"] is not None)
    )


def _same(chosen: Selection, row: dict[str, Any]) -> bool:
    return (chosen.sender or "").lower() == row["name"].lower()


@given(inboxes(), SELECTIONS, st.integers(1, 4))
def test_pages_bring_each_chosen_message_once_and_in_order(
    rows: list[dict[str, Any]], chosen: Selection, limit: int
) -> None:
    """Page after page, in both orders, for any changes of the clock."""
    seqs: list[int] = []
    with closing(empty("inbox")) as database:
        database.row_factory = sqlite3.Row
        fill(database, rows)
        while True:
            page = database.execute(*chosen.statement(seqs[-1] if seqs else None, limit)).fetchall()
            seqs += [row["seq"] for row in page]
            if len(page) < limit:
                break
    wanted = [row["seq"] for row in rows if is_chosen(row, chosen)]
    assert seqs == (wanted[::-1] if chosen.newest_first else wanted)


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("after", [None, 7])
@pytest.mark.parametrize(
    ("chosen", "index"),
    [
        ({"topic": "all"}, "inbox_topic"),
        ({"sender": "bob"}, "inbox_sender"),
        ({"unread": True}, "inbox_unread"),
        ({"session": "api"}, "inbox_for_session"),
        ({"session": "api", "unseen": True}, "inbox_unseen"),
        ({"unseen": True}, "inbox_unseen_by_all"),
        ({"session": "api", "host": "all", "unseen": True}, "inbox_unseen_by_all"),
    ],
)
def test_each_filter_of_the_inbox_finds_its_index(
    chosen: dict[str, Any], index: str, after: int | None, newest_first: bool
) -> None:
    """And the index gives the order: nothing is sorted."""
    statement, values = Selection(**chosen, newest_first=newest_first).statement(after, 33)
    with closing(empty("inbox")) as database:
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert len(plan) == 1
    assert f"USING INDEX {index}" in plan[0]


@pytest.mark.parametrize("untold", [False, True])
def test_messages_of_a_session_and_of_the_host_are_each_read_by_an_index(untold: bool) -> None:
    """In the order of both, and without those that other sessions have not seen."""
    chosen = Selection(session="api", host="free", unseen=True, untold=untold)
    statement, values = chosen.statement(7, 33)
    with closing(empty("inbox")) as database:
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    found = [step for step in plan if " inbox" in step]
    assert [step.split()[4] for step in found] == [
        "inbox_untold" if untold else "inbox_unseen",
        "inbox_for_host",
    ]


QUERIES = {
    name: statement
    for file in ("inbox.sql", "sessions.sql")
    for name, statement in load_queries("claudemesh.daemon.sql", file).items()
}
# The first runs once at the start, and the others on a full disk.
WHOLE = {"positions_first", "acked_remember", "acked_remove"}


@pytest.mark.parametrize("name", sorted(QUERIES.keys() - WHOLE))
def test_no_statement_reads_the_whole_inbox(name: str) -> None:
    """Each finds its messages by a key, or reads an index that holds those alone."""
    statement = QUERIES[name]
    numbers = [int(number) for number in re.findall(r"\?(\d+)", statement)]
    named = dict.fromkeys(re.findall(r":(\w+)", statement))
    values = named or [None] * max(numbers, default=statement.count("?"))
    with closing(empty("inbox")) as database:
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    whole = re.compile(r"SCAN (inbox|i)( USING (COVERING )?INDEX sqlite_autoindex_inbox_\d)?")
    assert [step for step in plan if whole.fullmatch(step)] == []


@pytest.mark.parametrize("status", [Status.PENDING, Status.INFLIGHT, Status.DEAD, Status.ABORTED])
@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_each_status_that_waits_for_somebody_finds_its_index(
    status: Status, newest_first: bool, first: bool
) -> None:
    """A million done rows do not slow the query."""
    statement = page_statement(status, newest_first=newest_first, first=first)
    with closing(empty("outbox")) as database:
        values = {"after": 7, "limit": 33}
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    found, *chosen = [step for step in plan if " outbox" in step]
    assert found == "SEARCH outbox USING INTEGER PRIMARY KEY (rowid=?)"
    assert all(f"INDEX outbox_{status.value}" in step for step in chosen)
