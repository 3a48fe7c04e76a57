"""A send while many messages wait in the outbox: the broker is away, and nothing drains."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from functools import partial

from benchmarks.lab import Caller, Lab, median_ms, send_request
from benchmarks.size import size
from tests.support.processes import Daemon, until

_FEW = size(10_000, 100)
_MANY = size(1_000_000, 1_000)
_LATENCIES = size(200, 3)


def few(lab: Lab) -> tuple[float, float]:
    """A send of one caller with 10,000 messages waiting, and with none; milliseconds."""
    return _beside_none(lab, _FEW)


def few_alone(lab: Lab) -> float:
    """A send of one caller with 10,000 messages waiting; milliseconds."""
    return _beside_none(lab, _FEW)[0]


def many(lab: Lab) -> tuple[float, float]:
    """A send of one caller with a million messages waiting, and with none; milliseconds."""
    return _beside_none(lab, _MANY)


def _beside_none(lab: Lab, count: int) -> tuple[float, float]:
    full, empty = lab.shared(f"{count} waiting", partial(_two_daemons, lab, count))
    times: tuple[list[float], list[float]] = ([], [])
    from_full, from_empty = send_request("empty"), send_request("full")
    with Caller(full) as to_full, Caller(empty) as to_empty:
        for caller, request in ((to_full, from_full), (to_empty, from_empty)):
            answer = caller.ask(request)
            assert b" 202" in answer, answer
        for _ in range(_LATENCIES):
            times[0].append(to_full.timed(from_full))
            times[1].append(to_empty.timed(from_empty))
    return median_ms(times[0]), median_ms(times[1])


@contextmanager
def _two_daemons(lab: Lab, count: int) -> Generator[tuple[Daemon, Daemon]]:
    with lab.mesh("full", "empty") as made:
        daemons = made.daemons["full"], made.daemons["empty"]
        for daemon in daemons:
            daemon.start()
        for daemon in daemons:
            daemon.ready()
        until(lambda: all(_knows_both(daemon) for daemon in daemons), "both know each other")
        made.broker.kill()
        # A row that has left on the link that was cut would not wait.
        until(lambda: not _is_connected(daemons[0]), "the link is down")
        assert daemons[0].send("empty", "x")[0] == 202
        daemons[0].stop()
        _copy_row(daemons[0], count)
        daemons[0].start()
        daemons[0].ready(connected=False)
        yield daemons


def _is_connected(daemon: Daemon) -> bool:
    connected: bool = daemon.request("GET", "/v1/health")[1]["connected"]
    return connected


def _knows_both(daemon: Daemon) -> bool:
    return len(daemon.request("GET", "/v1/peers")[1]["items"]) == 2


def _copy_row(daemon: Daemon, count: int) -> None:
    """Let the one message that waits wait many times, under other ids."""
    with closing(sqlite3.connect(daemon.root / "outbox.db")) as database, database:
        columns = [column[1] for column in database.execute("PRAGMA table_info(outbox)")]
        ids = {"id", "client_message_id"}
        copied = ", ".join("printf('%026d', n.i)" if name in ids else f"o.{name}" for name in columns)
        database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "  # noqa: S608
            f"INSERT INTO outbox ({', '.join(columns)}) SELECT {copied} FROM outbox AS o, n",
            (count - 1,),
        )
        found = database.execute("SELECT count(*) FROM outbox WHERE status = 'pending'").fetchone()[0]
        assert found == count, (found, count)
