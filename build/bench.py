"""Runs the rows of the bench, round by round, and prints ratios.

A ratio is taken inside one round, where both sides have met the same machine; what is printed is the
median of the rounds, with their range. Absolute figures on a shared machine mean little.
"""

from __future__ import annotations

import argparse
import json
import platform
import sqlite3
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from benchmarks import (
    accept,
    cli,
    directory,
    files,
    firstpost,
    growth,
    hooks,
    idle,
    path,
    peers,
    postgres,
    reading,
    send,
)
from benchmarks.lab import Lab


@dataclass
class Row:
    """A path, what it is held against, and what is aimed for: `sign` is >= for rates, <= for times."""

    name: str
    unit: str
    ceiling: str
    sign: str
    aim: float
    measure: Callable[[Lab], tuple[float, float]]
    # The reason for which this machine cannot measure the row, such as a program that is not installed.
    missing: Callable[[], str | None] = lambda: None
    rounds: list[tuple[float, float]] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Measured against the ceiling, one for each round."""
        return [measured / ceiling for measured, ceiling in self.rounds]

    @property
    def reached(self) -> bool:
        """Whether the median ratio is within the aim."""
        ratio = statistics.median(self.ratios)
        return ratio >= self.aim if self.sign == ">=" else ratio <= self.aim


ROWS = (
    Row("send, 64 callers", "requests/s", "the same, storing nothing", ">=", 0.5, send.many),
    Row("send, one caller", "ms", "one commit + an empty request", "<=", 1.5, send.one),
    Row("accept", "messages/s", "the rows in a script, 128 a commit", ">=", 0.3, accept.rate),
    Row("postgres accept", "messages/s", "the accept function, 128 a call", ">=", 0.25, postgres.rate),
    Row("postgres accept, two brokers", "messages/s", "one of them alone", ">=", 1.0, postgres.two_brokers),
    Row("topic of 100, postgres", "deliveries/s", "five times one-to-one", ">=", 1.0, postgres.topic),
    Row("end to end, idle", "ms", "three commits + the hops", "<=", 3.0, path.idle),
    Row("end to end, loaded", "messages/s", "accept by the same broker", ">=", 0.4, path.loaded),
    Row("posts to a topic", "messages/s", "as many direct messages", ">=", 0.9, path.posted),
    Row(
        "messages to an older key",
        "messages/s",
        "the same without a rotation",
        ">=",
        0.8,
        path.to_an_older_key,
    ),
    Row("events, 32 readers", "messages/s", "32 times one reader", ">=", 0.7, reading.fan_out),
    Row("inbox page of 500", "ms", "the same out of 1,000 rows", "<=", 1.3, reading.page),
    Row("a hook per message", "runs/s", "the program by subprocess, 8 at a time", ">=", 0.7, hooks.rate),
    Row("file of 256 MiB", "MiB/s", "cp + sha256 + secretstream, one process", ">=", 0.5, files.rate),
    Row("file of 256 MiB, memory", "MiB", "16 MiB", "<=", 1.0, files.memory),
    Row("file of 256 MiB, sends meanwhile", "ms", "the same without it", "<=", 2.0, files.latency),
    Row("claudemesh send", "ms", "python3 -c pass", "<=", 3.0, cli.warm),
    Row("a command as a member", "ms", "1.5 s", "<=", 1.0, cli.job),
    Row("first start", "ms", "its files copied and synced", "<=", 20.0, cli.first),
    *(
        Row(
            f"beside {peer}, {count} in flight",
            "messages/s",
            ceiling,
            ">=",
            1.0,
            peers.beside(peer, count),
            partial(peers.missing, peer),
        )
        for peer, ceiling in (
            ("redis", "Redis stream + NX in Lua, appendfsync always"),
            ("rabbitmq durable", "RabbitMQ, durable classic queue, confirms"),
            ("rabbitmq quorum", "RabbitMQ, quorum queue of one node, confirms"),
            ("nats", "NATS JetStream: acknowledged BEFORE it is on disk"),
        )
        for count in (256, 1)
    ),
    Row("20,000 members, nothing new", "ms", "a call that asks for nothing", "<=", 1.5, directory.question),
    Row("20,000 members, one changed", "ms", "its bytes appended and synced", "<=", 2.0, directory.change),
    Row("idle daemon, memory", "MB", "60 MB", "<=", 1.0, idle.memory),
    Row("idle daemon, CPU", "% of a core", "0.3 %", "<=", 1.0, idle.cpu),
    Row("idle connection, broker", "KB", "60 KB", "<=", 1.0, idle.connection),
)


# They take long to prepare, and the last one some gigabytes.
LARGE = (
    Row("2,000 members come back", "s", "30 s", "<=", 1.0, growth.back),
    Row("2,000 members, broker's memory", "MB", "250 MB", "<=", 1.0, growth.memory),
    Row("2,000 members, 100 a minute come and go", "% of a core", "1 %", "<=", 1.0, directory.churn),
    Row("a post to 2,000 members", "s", "1 s", "<=", 1.0, growth.post),
    Row("first post to 2,000 subscribers", "s", "2 s", "<=", 1.0, firstpost.first),
    Row("ten million messages, postgres", "messages/s", "the same without them", ">=", 0.77, postgres.grown),
)


def main() -> int:
    """Measure, print, and return 0: a bench reports, it does not judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", nargs="*", help="only rows whose name begins so")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--large",
        action="store_true",
        help="also rows that take minutes to prepare: a grown mesh, ten million messages",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smallest sizes, to see that rows run: the figures say nothing",
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [
        row
        for row in (ROWS + LARGE if options.large else ROWS)
        if not options.rows or row.name.startswith(tuple(options.rows))
    ]
    if not rows:
        parser.error("no row begins so; there are: " + "; ".join(row.name for row in ROWS))
    rows = measurable(rows)
    if not rows:
        return 0
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        for number in range(options.rounds):
            for row in rows:
                print(f"\r\033[Kround {number + 1} of {options.rounds}: {row.name}", end="", file=sys.stderr)
                row.rounds.append(row.measure(lab))
        print("\r\033[K", end="", file=sys.stderr)
    print_json(rows) if options.json else print_table(rows)
    return 0


def measurable(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that this machine can measure. The others are named with the reason."""
    kept = []
    for row in rows:
        reason = row.missing()
        if reason is None:
            kept.append(row)
        else:
            print(f"skipped: {row.name}: {reason}", file=sys.stderr)
    return kept


def print_table(rows: list[Row]) -> None:
    """A line for each row: medians, and the ratio with its range."""
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}")
    print("durable means: fsync'd before the acknowledgement, on both sides\n")
    head = ("path", "measured", "ceiling", "ratio (range)", "aim")
    lines = [head]
    for row in rows:
        measured, ceiling = (statistics.median(side) for side in zip(*row.rounds, strict=True))
        ratios = row.ratios
        lines.append(
            (
                row.name,
                f"{measured:,.{_digits(measured)}f} {row.unit}",
                f"{ceiling:,.{_digits(ceiling)}f}  {row.ceiling}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
                f"{row.sign} {row.aim:g} {'reached' if row.reached else 'NOT reached'}",
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_json(rows: list[Row]) -> None:
    """Every round's figures."""
    found = [
        {
            "path": row.name,
            "unit": row.unit,
            "ceiling": row.ceiling,
            "aim": f"{row.sign} {row.aim:g}",
            "reached": row.reached,
            "rounds": row.rounds,
        }
        for row in rows
    ]
    print(json.dumps(found, indent=2))


def _digits(value: float) -> int:
    return 0 if value >= 100 else 2 if value < 10 else 1


if __name__ == "__main__":
    sys.exit(main())
