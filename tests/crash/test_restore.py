"""A broker restored from an older backup: daemons offer what it forgot again (README, epoch)."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing

import pytest

from tests.support.audit import assert_contract, broker_rows, wait_done, wait_received
from tests.support.processes import Mesh, mesh, until


@pytest.fixture
def pair() -> Generator[Mesh]:
    """A broker, alice and bob."""
    with mesh("alice", "bob") as made:
        yield made


def backup(made: Mesh) -> bytes:
    """What `sqlite3 broker.db .backup` makes."""
    copy = made.root / "backup.db"
    with (
        closing(sqlite3.connect(made.broker.data / "broker.db")) as database,
        closing(sqlite3.connect(copy)) as target,
    ):
        database.backup(target)
    return copy.read_bytes()


def restore(made: Mesh, image: bytes) -> None:
    """Put an older database in the place of a broker's that is stopped."""
    for suffix in ("-wal", "-shm"):
        (made.broker.data / f"broker.db{suffix}").unlink(missing_ok=True)
    (made.broker.data / "broker.db").write_bytes(image)


@pytest.mark.parametrize("ending", ["stopped", "killed"])
def test_a_broker_that_has_forgotten_messages_is_offered_them_again(pair: Mesh, ending: str) -> None:
    """Every send is at the broker again, under one id; the recipient sees no duplicate."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    alice.send("bob", "before", client_message_id="before")
    wait_received(bob, ["before"])
    image = backup(pair)
    ids = [f"forgotten-{number}" for number in range(10)]
    for message_id in ids:
        assert alice.send("bob", "text", client_message_id=message_id)[0] in (200, 202)
    assert alice.post("all", "text", client_message_id="forgotten-post")[0] in (200, 202)
    everything = [*ids, "forgotten-post", "before"]
    wait_received(bob, everything)
    wait_done(alice, everything)
    mark = pair.broker.data / "high_water"
    until(lambda: mark.exists() and int(mark.read_text()) >= len(everything), "the mark has followed")
    pair.broker.stop() if ending == "stopped" else pair.broker.kill()
    restore(pair, image)
    pair.broker.start()
    pair.broker.ready()
    query = "SELECT client_message_id FROM client_message_dedupe"
    until(lambda: {row[0] for row in broker_rows(pair, query)} >= set(everything), "all is there again")
    until(lambda: '"event":"reoffer_done"' in alice.log.read_text(), "alice has noted the new epoch")
    assert_contract(pair, alice, [bob], everything)
    # And only once: another restart offers nothing.
    pair.broker.stop()
    pair.broker.start()
    pair.broker.ready()
    alice.ready()
    assert alice.send("bob", "after", client_message_id="after")[0] in (200, 202)
    wait_received(bob, ["after"])
    assert alice.log.read_text().count('"event":"reoffer_done"') == 1


def test_a_daemon_that_dies_while_it_offers_begins_again(pair: Mesh) -> None:
    """The new epoch is noted only after the last of them."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    alice.ready()
    image = backup(pair)
    ids = [f"forgotten-{number}" for number in range(200)]
    for message_id in ids:
        assert alice.send("bob", "text", client_message_id=message_id)[0] in (200, 202)
    wait_done(alice, ids)
    wait_received(bob, ids)
    mark = pair.broker.data / "high_water"
    until(lambda: mark.exists() and int(mark.read_text()) >= len(ids), "the mark has followed")
    pair.broker.kill()
    alice.kill()
    restore(pair, image)
    pair.broker.start()
    pair.broker.ready()
    alice.start("o1=kill@2")
    alice.wait_killed()
    alice.start()
    alice.ready()
    query = "SELECT client_message_id FROM client_message_dedupe"
    until(lambda: {row[0] for row in broker_rows(pair, query)} >= set(ids), "all is there again")
    until(lambda: '"event":"reoffer_done"' in alice.log.read_text(), "alice has noted the new epoch")
    assert_contract(pair, alice, [bob], ids)
