"""A daemon whose own files were put back from an older copy: the contract as far as its files can hold it."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.audit import assert_contract, wait_done, wait_received
from tests.support.processes import Daemon, Mesh, mesh


@pytest.fixture
def pair() -> Generator[Mesh]:
    """A broker, alice and bob."""
    with mesh("alice", "bob") as made:
        yield made


def copy(daemon: Daemon, name: str, target: Path) -> None:
    """Copy a database of a daemon that is stopped."""
    shutil.copy(daemon.root / name, target)


def put_back(daemon: Daemon, name: str, source: Path) -> None:
    """Put an older database in its place."""
    for suffix in ("-wal", "-shm"):
        (daemon.root / f"{name}{suffix}").unlink(missing_ok=True)
    shutil.copy(source, daemon.root / name)


def test_an_older_outbox_sends_again_what_it_thinks_is_pending(pair: Mesh) -> None:
    """The frozen envelopes are the same, and the broker answers with the ids that it gave."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    early = [f"early-{number}" for number in range(5)]
    for client_message_id in early:
        assert alice.send("bob", "text", client_message_id=client_message_id)[0] in (200, 202)
    wait_done(alice, early)
    pair.broker.stop()
    late = [f"late-{number}" for number in range(20)]
    for client_message_id in late:
        assert alice.send("bob", "text", client_message_id=client_message_id)[0] == 202
    alice.stop()
    image = pair.root / "outbox-image"
    copy(alice, "outbox.db", image)
    pair.broker.start()
    alice.start()
    alice.ready()
    wait_done(alice, late)
    wait_received(bob, [*early, *late])
    sent = {client_message_id: row["broker_message_id"] for client_message_id, row in alice.outbox().items()}
    alice.stop()
    put_back(alice, "outbox.db", image)
    alice.start()
    alice.ready()
    assert alice.send("bob", "text", client_message_id="after")[0] in (200, 202)
    everything = [*early, *late, "after"]
    assert_contract(pair, alice, [bob], everything)
    again = alice.outbox()
    assert {
        client_message_id: again[client_message_id]["broker_message_id"] for client_message_id in sent
    } == sent
    assert '"event":"broker_went_back"' not in alice.log.read_text()


def test_an_older_inbox_receives_what_follows_once(pair: Mesh) -> None:
    """Messages received and acknowledged since the copy are missing on this host; all others arrive once."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    ids = ["before", "since", "owed", "after"]
    assert alice.send("bob", "text", client_message_id="before")[0] in (200, 202)
    wait_received(bob, ["before"])
    bob.stop()
    image = pair.root / "inbox-image"
    copy(bob, "inbox.db", image)
    bob.start()
    assert alice.send("bob", "text", client_message_id="since")[0] in (200, 202)
    wait_received(bob, ["since"])
    bob.stop()
    assert alice.send("bob", "text", client_message_id="owed")[0] in (200, 202)
    wait_done(alice, ids[:3])
    put_back(bob, "inbox.db", image)
    bob.start()
    assert alice.send("bob", "text", client_message_id="after")[0] in (200, 202)
    wait_received(bob, ["before", "owed", "after"])
    received = [item["client_message_id"] for item in bob.inbox()]
    assert received == ["before", "owed", "after"]
