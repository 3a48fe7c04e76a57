"""Wall clocks that are wrong or set, of real daemons and brokers, while they run and when they start.

Nothing is lost, refused or held up: messages arrive, inboxes stay full, ids stay taken, leases hold.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.audit import assert_contract, assert_no_orphans, broker_rows
from tests.support.faketime import FakeClock
from tests.support.nursery import nursery_for
from tests.support.processes import REPOSITORY, Mesh, Process, mesh
from tests.support.waiting import WAIT_S

JUMPS: dict[str, Callable[[FakeClock], None]] = {
    "a month ahead": lambda clock: clock.shift(days=31),
    "a year ahead": lambda clock: clock.shift(days=366),
    "a year back": lambda clock: clock.shift(days=-366),
    "1970": lambda clock: clock.set(datetime(1970, 1, 1, 0, 1, tzinfo=UTC)),
    "2038": lambda clock: clock.set(datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC)),
    "right": lambda clock: clock.reset(),
}
SWEEPS = ("message-sweep", "dedupe-sweep", "ephemeral-reaper")
DAY_MS = 86_400_000


class Clocked:
    """A mesh of alice and bob, each process with a clock of its own."""

    def __init__(self, made: Mesh) -> None:
        self.mesh = made
        self.alice, self.bob = made.daemons["alice"], made.daemons["bob"]
        self.processes: dict[str, Process] = {"broker": made.broker, **made.daemons}
        self.clocks = {name: FakeClock(made.root / f"{name}.clock") for name in self.processes}
        self.ids: list[str] = []
        self._sent = 0
        for name, process in self.processes.items():
            process.environment |= self.clocks[name].variables

    def exchange(self) -> None:
        """Send from alice to bob, and find everything that was ever sent in his inbox, once."""
        for _ in range(5):
            self._sent += 1
            status, answer = self.alice.send("bob", f"message {self._sent}")
            assert status in (200, 202), answer
            self.ids.append(answer["client_message_id"])
        assert_contract(self.mesh, self.alice, [self.bob], self.ids)
        assert_no_orphans(self.mesh)
        for daemon in (self.alice, self.bob):
            _, health = daemon.request("GET", "/v1/health")
            assert health["connected"], health

    def sweep(self) -> None:
        """Run every sweep; nothing is old enough to go."""
        for name in SWEEPS:
            answer = self.run(name)
            assert answer["count"] == 0, (name, answer)

    def run(self, job: str) -> Any:
        """Run a job of the broker."""
        return self.admin("POST", "jobs/run", {"job": job})

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the broker's admin API."""
        token = (self.mesh.broker.data / "admin_token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.mesh.broker.port, timeout=WAIT_S)
        with closing(connection):
            raw = None if body is None else json.dumps(body)
            connection.request(method, f"/v1/admin/{path}", raw, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        assert response.status == 200, answer
        return answer

    def restart(self, names: list[str]) -> None:
        """Stop processes and start them again, with the times of their clocks."""
        for name in names:
            assert self.processes[name].stop() == 0
        for name in names:
            self.processes[name].start()
        self.mesh.broker.ready()
        for daemon in (self.alice, self.bob):
            daemon.ready()


@pytest.fixture
def clocked() -> Generator[Clocked]:
    """All of them run, with the right time."""
    with mesh("alice", "bob", start=False) as made:
        made.broker.stop()
        found = Clocked(made)
        made.broker.start()
        made.broker.ready()
        for daemon in made.daemons.values():
            daemon.start()
        for daemon in made.daemons.values():
            daemon.ready()
        yield found


def test_a_fake_clock_moves_wall_time_alone(tmp_path: Path) -> None:
    """In processes that are started and in those that are forked. Else the tests below would show nothing."""
    names = ("CLOCK_REALTIME", "CLOCK_MONOTONIC", "CLOCK_BOOTTIME")
    found, clock = tmp_path / "found", FakeClock(tmp_path / "clock")
    read = f"[*[time.clock_gettime(getattr(time, name)) for name in {names}], time.time()]"
    code = f"import json, pathlib, time; pathlib.Path({str(found)!r}).write_text(json.dumps({read}))"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}

    def started(variables: dict[str, str]) -> int:
        return subprocess.run([sys.executable, "-c", code], env=environment | variables).returncode

    def forked(variables: dict[str, str]) -> int:
        nursery = nursery_for(environment | variables)
        assert nursery is not None
        with open(os.devnull, "r+b") as nothing:
            return nursery.spawn("code", [code], environment | variables, [nothing.fileno()] * 3).wait(WAIT_S)

    for way, days in itertools.product((started, forked), (400, -30)):
        clock.shift(days=days)
        times = []
        for variables in ({}, clock.variables):
            assert way(variables) == 0
            times.append(json.loads(found.read_text()))
        moved = [round((after - before) / 86_400) for before, after in zip(*times, strict=True)]
        assert moved == [days, 0, 0, days], way


@pytest.mark.parametrize("names", [["broker"], ["alice", "bob"]], ids="+".join)
def test_no_clock_that_is_set_loses_or_stops_a_message(clocked: Clocked, names: list[str]) -> None:
    """A month or a year ahead, a year back, 1970, 2038 and right again: while it runs, then at a start."""
    clocked.exchange()
    for jump, apply in JUMPS.items():
        for name in names:
            apply(clocked.clocks[name])
        try:
            clocked.exchange()
            clocked.sweep()
            clocked.restart(names)
            clocked.exchange()
            clocked.sweep()
        except AssertionError as error:
            raise AssertionError(f"with the clock of {', '.join(names)} at {jump}: {error}") from error


def test_an_ephemeral_member_stays_while_the_brokers_clock_is_set(clocked: Clocked) -> None:
    """Its lease goes by lived time: the member is online at any wall time, and the reaper does not remove
    it."""
    clocked.exchange()
    with closing(sqlite3.connect(clocked.mesh.broker.data / "broker.db")) as database:
        database.execute("UPDATE member SET ephemeral = 1 WHERE name = 'bob'")
        database.commit()
    for apply in JUMPS.values():
        apply(clocked.clocks["broker"])
        clocked.sweep()
        _, peers = clocked.alice.request("GET", "/v1/peers")
        assert {peer["name"]: peer["online"] for peer in peers["items"]}["bob"]
    clocked.exchange()


def test_what_was_lived_through_is_swept_whatever_the_clock_shows(clocked: Clocked) -> None:
    """With a clock in 1970: bodies go after their retention, the ids stay taken, a retry is a duplicate."""
    clocked.clocks["broker"].set(datetime(1970, 1, 1, 0, 1, tzinfo=UTC))
    clocked.restart(["broker"])
    clocked.exchange()
    assert clocked.mesh.broker.stop() == 0
    with closing(sqlite3.connect(clocked.mesh.broker.data / "broker.db")) as database:
        database.execute("UPDATE lived_clock SET lived_ms = lived_ms + ?, boot_id = NULL", (91 * DAY_MS,))
        database.commit()
    clocked.mesh.broker.start()
    clocked.mesh.broker.ready()
    assert clocked.run("message-sweep")["count"] == len(clocked.ids)
    assert clocked.run("dedupe-sweep")["count"] == 0
    known = broker_rows(clocked.mesh, "SELECT client_message_id FROM client_message_dedupe")
    assert {row[0] for row in known} == set(clocked.ids)
    assert clocked.run("orphan-check")["found"] == 0
    [check] = [item for item in clocked.admin("GET", "jobs")["items"] if item["job"] == "orphan-check"]
    assert check["last_run_at"].startswith("1970-")
    assert len(clocked.bob.inbox()) == len(clocked.ids)


def test_messages_are_listed_as_they_came_whatever_the_clock_showed(clocked: Clocked) -> None:
    """Received with clocks that went back and ahead."""
    clocked.exchange()
    for jump in ("a year back", "2038", "1970"):
        JUMPS[jump](clocked.clocks["bob"])
        clocked.exchange()
    assert [item["client_message_id"] for item in clocked.bob.inbox()] == clocked.ids
