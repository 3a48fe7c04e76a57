"""`daemon recover` loses no readable send of a damaged outbox, also over kills."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.audit import wait_received
from tests.support.cli import run
from tests.support.processes import Daemon, Mesh, Process, mesh

SENDS = 400
PAGE = 4096
DECIDED = ["recover.after_aside", "recover.after_sides", "recover.after_exchange"]


def outbox_of(daemon: Daemon) -> Path:
    return daemon.root / "outbox.db"


def damage(path: Path) -> None:
    """Overwrite a page in the middle of the table of a database that no process uses."""
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        pages = raw.execute("PRAGMA page_count").fetchone()[0]
        root = raw.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'outbox'").fetchone()[0]
    with path.open("r+b") as file:
        for page in range(pages // 2, pages // 2 + 3):
            if page + 1 != root:
                file.seek(page * PAGE)
                file.write(b"\xff" * PAGE)


def waiting(made: Mesh) -> tuple[Daemon, list[str]]:
    """Alice, stopped, with sends that wait for a broker that is away."""
    alice = made.daemons["alice"]
    made.broker.stop()
    ids = [alice.send("bob", f"message {number}")[1]["client_message_id"] for number in range(SENDS)]
    alice.stop()
    return alice, ids


def readable(path: Path) -> set[str]:
    """The ids in a database that is whole."""
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        return {row[0] for row in raw.execute("SELECT client_message_id FROM outbox")}


def test_a_damaged_outbox_is_refused_and_its_readable_sends_arrive_once() -> None:
    """The damaged file is kept, and the refusal names the command."""
    with mesh("alice", "bob") as made:
        alice, ids = waiting(made)
        damage(outbox_of(alice))
        before = outbox_of(alice).read_bytes()
        refused = run(alice.home, "daemon", "up", "--json")
        assert (refused.code, refused.json["error"]) == (78, "outbox_corrupt")
        assert refused.json["next"] == "claudemesh daemon recover"
        asked = run(alice.home, "daemon", "recover", "--json")
        assert (asked.code, asked.json["error"]) == (64, "confirmation_needed")
        assert outbox_of(alice).read_bytes() == before
        done = run(alice.home, "daemon", "recover", "--yes", "--json").json
        kept = readable(outbox_of(alice))
        assert (done["status"], done["salvaged"], done["unsent"]) == ("recovered", len(kept), len(kept))
        assert 0 < len(kept) < SENDS
        assert {ids[0], ids[-1]} <= kept
        assert Path(done["moved_to"]).read_bytes() == before
        made.broker.start()
        alice.start()
        alice.ready()
        bob = made.daemons["bob"]
        wait_received(bob, [one for one in ids if one in kept])
        again = run(alice.home, "daemon", "recover", "--json")
        assert again.json["error"] == "already_running"


@pytest.mark.parametrize("failpoint", ["recover.after_draft", "recover.after_ready", *DECIDED])
def test_a_kill_leaves_the_damaged_outbox_or_the_recovered_one(failpoint: str) -> None:
    """In no case does the daemon begin with an empty one."""
    with mesh("alice", "bob") as made:
        alice, ids = waiting(made)
        damage(outbox_of(alice))
        before = outbox_of(alice).read_bytes()
        process = Process(["daemon", "recover", "--yes"], alice.home, alice.log)
        process.start(f"{failpoint}=kill@1")
        process.wait_killed()
        if failpoint not in DECIDED:
            assert outbox_of(alice).read_bytes() == before
            assert run(alice.home, "daemon", "up", "--json").json["error"] == "outbox_corrupt"
            assert run(alice.home, "daemon", "recover", "--yes", "--json").json["status"] == "recovered"
        made.broker.start()
        alice.start()
        alice.ready()
        alice.stop()
        kept = readable(outbox_of(alice))
        assert {ids[0], ids[-1]} <= kept
        [moved] = [one for one in alice.root.glob("outbox.db.damaged-*") if one.name[-1].isdigit()]
        assert moved.read_bytes() == before


def test_files_that_cannot_be_recovered_are_refused_unchanged() -> None:
    """One of a newer version and a link; a healthy outbox stays; `--fresh` begins with an empty one."""
    with mesh("alice", "bob") as made:
        alice, ids = waiting(made)
        path = outbox_of(alice)
        healthy = run(alice.home, "daemon", "recover", "--json").json
        assert (healthy["status"], healthy["outbox"], healthy["inbox"]) == ("unchanged", "healthy", "healthy")
        assert readable(path) == set(ids)
        with closing(sqlite3.connect(path)) as raw:
            version = raw.execute("PRAGMA user_version").fetchone()[0]
            raw.execute("PRAGMA user_version = 999")
        newer = run(alice.home, "daemon", "recover", "--yes", "--json")
        assert (newer.code, newer.json["error"]) == (78, "schema_too_new")
        with closing(sqlite3.connect(path)) as raw:
            raw.execute(f"PRAGMA user_version = {version}")
        path.rename(path.with_name("elsewhere"))
        path.symlink_to("elsewhere")
        linked = run(alice.home, "daemon", "recover", "--yes", "--json")
        assert (linked.code, linked.json["error"]) == (78, "unsafe_file")
        path.unlink()
        path.with_name("elsewhere").rename(path)
        path.write_bytes(b"no database at all" * 1000)
        fresh = run(alice.home, "daemon", "recover", "--fresh", "--yes", "--json").json
        assert (fresh["status"], fresh["salvaged"]) == ("recovered", 0)
        assert readable(path) == set()
