"""A send that the broker does not take dies alone; its neighbours arrive."""

from __future__ import annotations

import json
from collections.abc import Generator

import pytest

from tests.support.audit import wait_done, wait_received
from tests.support.processes import Daemon, Mesh, mesh, until
from tests.support.proxy import CUT, Rules, proxy

LARGE = "x" * 200_000
SMALL_INLINE = 65_536


@pytest.fixture
def pair() -> Generator[Mesh]:
    """A broker, alice and bob."""
    with mesh("alice", "bob", front=True) as made:
        yield made


def health(daemon: Daemon) -> dict[str, object]:
    """The daemon's own account."""
    found: dict[str, object] = daemon.request("GET", "/v1/health")[1]
    return found


def links(daemon: Daemon) -> int:
    """Return the number of links that the daemon has had so far."""
    return daemon.log.read_text().count('"link_up"')


def shrink(made: Mesh) -> None:
    """Let the broker take less from its next start on."""
    (made.broker.data / "broker.toml").write_text(f"inline_bytes = {SMALL_INLINE}\n")


def test_a_row_over_the_limit_of_the_broker_that_returns_dies_and_the_others_arrive(pair: Mesh) -> None:
    """Its reason names both sizes, it was never sent, and one link was enough."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    pair.broker.stop()
    until(lambda: not health(alice)["connected"], "alice has lost the broker")
    before = links(alice)
    assert alice.send("bob", LARGE, client_message_id="large")[0] == 202
    assert alice.send("bob", "hi", client_message_id="small")[0] == 202
    shrink(pair)
    pair.broker.start()
    pair.broker.ready()
    wait_done(alice, ["small"])
    wait_received(bob, ["small"])
    row = until(lambda: _dead(alice, "large"), "the large row is dead")
    assert row["last_error"].startswith("payload_too_large: The sealed message has 200")
    assert str(SMALL_INLINE) in row["last_error"]
    assert (row["attempts"], links(alice)) == (0, before + 1)


def test_the_negotiated_size_holds_while_the_broker_is_away(pair: Mesh) -> None:
    """Also for a daemon that was started meanwhile: a longer text goes as a file, and has no row."""
    alice = pair.daemons["alice"]
    pair.broker.stop()
    shrink(pair)
    pair.broker.start()
    pair.broker.ready()
    alice.ready()
    pair.broker.stop()
    alice.stop()
    alice.start()
    alice.ready(connected=False)
    status, answer = alice.send("bob", LARGE, client_message_id="large")
    assert (status, answer["status"]) == (202, "queued")
    assert alice.outbox() == {}
    assert len(list((alice.root / "spool").iterdir())) == 1


def test_a_frame_that_ends_the_link_dies_alone(pair: Mesh) -> None:
    """Something on the way closes with 1009 for it: the second time, alone in flight, it is dead."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    pair.broker.stop()
    until(lambda: not health(alice)["connected"], "alice has lost the broker")
    before = links(alice)
    ids = [f"small-{number}" for number in range(20)]
    for client_message_id in ids[:10]:
        assert alice.send("bob", client_message_id, client_message_id=client_message_id)[0] == 202
    assert alice.send("bob", LARGE, client_message_id="large")[0] == 202
    for client_message_id in ids[10:]:
        assert alice.send("bob", client_message_id, client_message_id=client_message_id)[0] == 202
    alice.stop()
    pair.broker.start()
    pair.broker.ready()
    with proxy(pair.broker.port, Rules(max_size=100_000), pair.broker.front_port) as port:
        _dial(alice, port)
        alice.start()
        wait_received(bob, ids)
        wait_done(alice, ids)
        row = until(lambda: _dead(alice, "large"), "the large row is dead")
        assert row["last_error"].startswith("payload_too_large: The broker closed the link (1009)")
        assert links(alice) == before + 3
        assert alice.send("bob", "after", client_message_id="after")[0] == 202
        wait_received(bob, ["after"])
        alice.stop()


def test_links_that_die_right_after_sends_left_reorder_nothing(pair: Mesh) -> None:
    """Three links in a row end under the same rows; they arrive in the order in which they were accepted."""
    alice, bob = pair.daemons["alice"], pair.daemons["bob"]
    pair.broker.stop()
    until(lambda: not health(alice)["connected"], "alice has lost the broker")
    ids = [f"m-{number:02}" for number in range(20)]
    for client_message_id in ids:
        assert alice.send("bob", client_message_id, client_message_id=client_message_id)[0] == 202
    alice.stop()
    pair.broker.start()
    pair.broker.ready()
    rules = Rules({("send", number): CUT for number in (1, 2, 3)})
    with proxy(pair.broker.port, rules, pair.broker.front_port) as port:
        _dial(alice, port)
        alice.start()
        wait_received(bob, ids)
        wait_done(alice, ids)
        alice.stop()
    assert len(rules.struck) >= 3
    items = sorted(bob.inbox(), key=lambda item: item["history_id"])
    assert [item["client_message_id"] for item in items] == ids


def _dial(daemon: Daemon, port: int) -> None:
    path = daemon.root / "membership.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "broker_url": f"ws://127.0.0.1:{port}"}))


def _dead(daemon: Daemon, client_message_id: str) -> dict[str, object] | None:
    row: dict[str, object] = daemon.outbox()[client_message_id]
    return row if row["status"] == "dead" else None
