"""`daemon recover` loses no readable send of a damaged outbox, and fills a damaged inbox, also over kills."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.audit import wait_done, wait_received
from tests.support.cli import run
from tests.support.processes import Daemon, Mesh, Process, mesh, until

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
        assert asked.json["next"].endswith(" --yes")
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
        path.write_bytes(b"")
        emptied = run(alice.home, "daemon", "recover", "--json")
        assert (emptied.json["error"], "lost its content" in emptied.err + emptied.out) == (
            "confirmation_needed",
            True,
        )


def damage_index(path: Path, name: str) -> None:
    """Overwrite the first page of an index, so that every row of its table can still be read."""
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root = raw.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()[0]
    with path.open("r+b") as file:
        file.seek((root - 1) * PAGE)
        file.write(b"\xff" * PAGE)


def test_what_a_recovery_loses_besides_sends_is_kept_or_named() -> None:
    """Receipts stay with their sends; the list for a restored broker is copied, or named as lost."""
    with mesh("alice", "bob") as made:
        alice = made.daemons["alice"]
        assert alice.send("bob", "text", client_message_id="one", receipt="delivered")[0] in (200, 202)
        until(lambda: alice.request("GET", "/v1/outbox/one")[1]["state"] == "delivered", "the receipt")
        before = alice.request("GET", "/v1/outbox/one")[1]["recipients"]
        assert len(before) == 1
        alice.stop()
        damage_index(outbox_of(alice), "outbox_done")
        asked = run(alice.home, "daemon", "recover")
        assert "1 sends are copied to a new one, 0 of them not delivered yet, with 1 receipts" in asked.err
        assert "restored broker" not in asked.err
        fresh = run(alice.home, "daemon", "recover", "--fresh")
        assert "restored broker" in fresh.err
        done = run(alice.home, "daemon", "recover", "--yes", "--json").json
        assert (done["status"], done["salvaged"], done["receipts"]) == ("recovered", 1, 1)
        alice.start()
        alice.ready()
        assert alice.request("GET", "/v1/outbox/one")[1]["recipients"] == before


@pytest.mark.parametrize("failpoint", [None, *DECIDED])
def test_files_that_wait_survive_the_damage_of_their_list(failpoint: str | None) -> None:
    """The start refuses it and names the command, which copies what can be read, also over a kill."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        made.broker.stop()
        (made.root / "a.tar").write_bytes(b"content")
        sent = run(alice.home, "file", "send", str(made.root / "a.tar"), "bob")
        assert sent.code == 0, sent.err
        alice.stop()
        damage_index(alice.root / "files.db", "shared_open")
        refused = run(alice.home, "daemon", "up", "--json").json
        assert (refused["error"], refused["next"]) == ("files_corrupt", "claudemesh daemon recover")
        asked = run(alice.home, "daemon", "recover")
        assert "1 files and long texts are copied to a new one, 1 of them not shared yet" in asked.err
        if failpoint is None:
            done = run(alice.home, "daemon", "recover", "--yes", "--json").json
            assert (done["outbox"], done["files"], done["salvaged_files"]) == ("healthy", "damaged", 1)
            assert Path(done["files_moved_to"]).exists()
        else:
            process = Process(["daemon", "recover", "--yes"], alice.home, alice.log)
            process.start(f"{failpoint}=kill@1")
            process.wait_killed()
        made.broker.start()
        alice.start()
        alice.ready()
        until(lambda: run(bob.home, "file", "list", "--json").json["items"], "the file")


def inbox_of(daemon: Daemon) -> Path:
    return daemon.root / "inbox.db"


def states(daemon: Daemon) -> set[tuple[str, bool, str | None]]:
    """Text, mark and time of the acknowledgement of each message."""
    return {(item["body"], item["recovered"], item["acked_at"]) for item in daemon.inbox()}


def rebuilt(daemon: Daemon, bodies: list[str]) -> None:
    """Wait until an inbox was filled from the history; each message is there once, marked and read."""
    until(lambda: not daemon.root.joinpath("inbox.db.rebuild").exists(), "the inbox is filled")
    found = {item["body"]: item for item in daemon.inbox()}
    assert len(found) == len(daemon.inbox())
    assert set(bodies) <= set(found)
    for body in bodies:
        assert (found[body]["recovered"], found[body]["acked_at"] is not None) == (True, True)


def test_a_damaged_inbox_is_filled_from_the_history_and_what_still_waits_is_new() -> None:
    """The broker keeps what was delivered. No stream shows it again, and a message that waits is unread."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        bodies = [f"message {number}" for number in range(5)]
        for body in bodies:
            assert alice.send("bob", body)[0] in (200, 202)
        until(lambda: {item["body"] for item in bob.inbox()} == set(bodies), "bob has all of them")
        seen = max(item["seq"] for item in bob.inbox())
        bob.stop()
        late = alice.send("bob", "late", client_message_id="late")
        assert late[0] in (200, 202)
        wait_done(alice, ["late"])
        inbox_of(bob).write_bytes(b"no database at all" * 1000)
        assert run(bob.home, "daemon", "recover", "--json").json["error"] == "confirmation_needed"
        for point in ("rebuild.after_note", "rebuild.after_aside"):
            process = Process(["daemon", "recover", "--yes"], bob.home, bob.log)
            process.start(f"{point}=kill@1")
            process.wait_killed()
        done = run(bob.home, "daemon", "recover", "--yes", "--json").json
        assert (done["status"], done["outbox"], done["inbox"]) == ("recovered", "healthy", "missing")
        assert done["next"][0] == "claudemesh daemon up -d"
        bob.start("rebuild.after_page=kill@1")
        bob.wait_killed()
        bob.start()
        bob.ready()
        rebuilt(bob, bodies)
        until(lambda: ("late", False, None) in states(bob), "the late one is delivered, as a new one")
        _, page = bob.request("GET", f"/v1/inbox?after={seen}")
        assert [item["body"] for item in page["items"]] == ["late"]
        # A start that finds the damage by itself does the same.
        bob.stop()
        inbox_of(bob).write_bytes(b"no database at all" * 1000)
        bob.start()
        bob.ready()
        rebuilt(bob, bodies)
        until(lambda: "late" in {body for body, _, _ in states(bob)}, "the late one is there too")
