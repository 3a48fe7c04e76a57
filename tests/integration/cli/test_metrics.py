"""Metrics of a daemon, and the dashboard that shows them."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.audit import wait_done, wait_received
from tests.support.cli import run
from tests.support.processes import Daemon, Mesh, mesh


@pytest.fixture(scope="module")
def pair() -> Generator[Mesh]:
    """A broker, alice and bob, with some traffic behind them."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons.values()
        for client_message_id in ("one", "two", "one"):
            alice.send("bob", f"text {client_message_id}", client_message_id=client_message_id)
        alice.send("nobody", "x")
        alice.request("GET", "/v1/outbox/one")
        alice.request("GET", "/v1/outbox/a%2Fb")
        alice.request("GET", "/somewhere/else")
        wait_done(alice, ["one", "two"])
        wait_received(bob, ["one", "two"])
        made.broker.stop()
        made.broker.start()
        made.broker.ready()
        for daemon in (alice, bob):
            daemon.ready()
        yield made


def counted(daemon: Daemon) -> dict[str, float]:
    """Every sample by its name and labels."""
    samples: dict[str, float] = run(daemon.home, "daemon", "metrics", "--json").json
    return samples


def test_requests_are_counted_by_route_status_and_door(pair: Mesh) -> None:
    """Never by an id: an outbox row's path is one route, what is unknown another."""
    samples = counted(pair.daemons["alice"])
    name = 'cm_daemon_ipc_request_total{endpoint="%s",status="%s",transport="unix"}'
    assert samples[name % ("/v1/send", "202")] >= 2
    assert samples[name % ("/v1/send", "404")] == 1
    assert samples[name % ("/v1/outbox/{id}", "200")] == 1
    assert samples[name % ("other", "404")] == 1
    assert samples['cm_daemon_ipc_duration_seconds_count{endpoint="/v1/send"}'] >= 4
    assert not [sample for sample in samples if '"one"' in sample]


def test_traffic_is_counted_by_kind_and_outcome(pair: Mesh) -> None:
    """Sent here, received there, links lost."""
    alice, bob = (counted(pair.daemons[name]) for name in ("alice", "bob"))
    assert alice['cm_daemon_send_total{kind="dm",status="done"}'] == 2
    assert bob['cm_daemon_recv_total{kind="dm"}'] == 2
    assert sum(value for name, value in alice.items() if name.startswith("cm_daemon_reconnects_total")) >= 1
    assert alice["cm_daemon_connected"] == 1
    assert alice["cm_daemon_outbox_age_seconds"] == 0
    assert 0 < alice['cm_daemon_disk_pct{kind="disk"}'] <= 100
