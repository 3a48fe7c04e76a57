"""A broker whose database was restored from any copy: nothing that it acknowledged is missing in the end."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.audit import assert_contract, broker_rows, wait_done, wait_received
from tests.support.copies import POSTGRES, SQLITE, Copy, Directory
from tests.support.postgres import Server
from tests.support.processes import Daemon, Mesh, mesh, until

DEDUPE = "SELECT client_message_id FROM client_message_dedupe"


@pytest.fixture
def pair() -> Generator[Mesh]:
    """A broker, alice and bob."""
    with mesh("alice", "bob") as made:
        yield made


@pytest.fixture
def server() -> Generator[Server]:
    """A Postgres server whose files a test may exchange."""
    made = Server()
    try:
        made.start()
        yield made
    finally:
        made.remove()


def send(sender: Daemon, to: str, ids: list[str]) -> None:
    """Send a message under each id."""
    for message_id in ids:
        assert sender.send(to, "text", client_message_id=message_id)[0] in (200, 202)


def restart(made: Mesh) -> None:
    """Start a broker that is stopped."""
    made.broker.start()
    made.broker.ready()


def copied(made: Mesh, copy: Copy) -> None:
    """Take a copy of a broker that goes on afterwards."""
    made.broker.stop()
    copy.take()
    restart(made)
    for daemon in made.daemons.values():
        if daemon.running:
            daemon.ready()


def restored(made: Mesh, copy: Copy) -> None:
    """Put a copy back and start the broker on it."""
    if made.broker.running:
        made.broker.stop()
    copy.put_back()
    restart(made)


def logged(daemon: Daemon, event: str) -> int:
    """How often a daemon has logged an event."""
    return daemon.log.read_text().count(f'"event":"{event}"')


def at_the_broker(made: Mesh, ids: list[str]) -> None:
    """Wait until the broker knows all of these."""
    until(lambda: {row[0] for row in broker_rows(made, DEDUPE)} >= set(ids), "all is at the broker again")


def check_is_clean(made: Mesh, daemon: Daemon) -> None:
    """`broker check` finds no message that is not whole."""
    token = str(made.broker.data / "admin_token")
    made.cli(daemon, "broker", "check", "--broker", made.broker.url, "--admin-token-file", token)


def forget_and_mend(made: Mesh, copy: Copy) -> None:
    """What follows a copy is received, or owed to a recipient that is away; it all survives a restore."""
    alice, bob = made.daemons["alice"], made.daemons["bob"]
    send(alice, "bob", ["before"])
    wait_received(bob, ["before"])
    wait_done(alice, ["before"])
    copied(made, copy)
    seen = [f"seen-{number}" for number in range(8)]
    send(alice, "bob", seen)
    assert alice.post("all", "text", client_message_id="seen-post")[0] in (200, 202)
    wait_received(bob, [*seen, "seen-post"])
    bob.stop()
    owed = [f"owed-{number}" for number in range(8)]
    send(alice, "bob", owed)
    everything = ["before", *seen, "seen-post", *owed]
    wait_done(alice, everything)
    restored(made, copy)
    bob.start()
    bob.ready()
    wait_received(bob, everything)
    at_the_broker(made, everything)
    until(lambda: logged(alice, "reoffer_done"), "alice has offered everything")
    assert_contract(made, alice, [bob], everything)
    check_is_clean(made, alice)
    # The mesh goes on, and the next start finds nothing to mend.
    made.broker.stop()
    restart(made)
    alice.ready()
    send(alice, "bob", ["after"])
    wait_received(bob, ["after"])
    assert logged(alice, "broker_went_back") == 1


@pytest.mark.parametrize("kind", SQLITE)
def test_a_broker_restored_from_any_copy_has_everything_again(pair: Mesh, kind: str) -> None:
    """Nothing beside the database can vouch for it: its clients do."""
    forget_and_mend(pair, SQLITE[kind](pair))


@pytest.mark.parametrize("kind", POSTGRES)
def test_a_postgres_restored_from_any_copy_has_everything_again(server: Server, kind: str) -> None:
    """A cold copy of the cluster is the same system, database and timeline as before."""
    with mesh("alice", "bob", database_url=server.url()) as made:
        forget_and_mend(made, POSTGRES[kind](made, server))


def test_a_daemon_that_dies_while_it_mends_begins_again(pair: Mesh) -> None:
    """At each step: the restore is noted, everything was asked about, a part is offered. Live sends go on."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    copy = Directory(pair)
    copied(pair, copy)
    bob.stop()
    ids = [f"forgotten-{number}" for number in range(200)]
    send(alice, "bob", ids)
    wait_done(alice, ids)
    alice.stop()
    restored(pair, copy)
    for point in ("o0=kill", "o2=kill", "o1=kill@2"):
        alice.start(point)
        alice.wait_killed()
    # New sends leave at once when the link is up, so the newest done sends are ones that the broker knows.
    pair.broker.stop()
    alice.start("o1=kill@3")
    alice.ready(connected=False)
    live = [f"live-{number}" for number in range(40)]
    send(alice, "bob", live)
    pair.broker.start()
    alice.wait_killed()
    alice.start()
    bob.start()
    bob.ready(connected=False)
    wait_received(bob, [*ids, *live])
    at_the_broker(pair, [*ids, *live])
    until(lambda: logged(alice, "reoffer_done"), "alice has offered everything")
    assert_contract(pair, alice, [bob], [*ids, *live])
