"""config.toml while the daemon runs, the loopback, and its token: with real processes."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import stat
from collections.abc import Generator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.support.cli import run
from tests.support.processes import Daemon, free_port, mesh, until
from tests.support.waiting import WAIT_S

OK, PERMISSION, CONFIGURATION = 0, 77, 78
ORIGIN = {"Origin": "http://localhost:3000"}


@pytest.fixture
def alice() -> Generator[Daemon]:
    """A daemon that answers on the loopback."""
    with mesh("alice", start=False) as made:
        daemon = made.daemons["alice"]
        configure(daemon, "[ipc]\ntcp_enabled = true\n")
        daemon.start()
        daemon.ready()
        yield daemon


def configure(daemon: Daemon, text: str) -> None:
    """Write config.toml."""
    (daemon.root / "config.toml").write_text(text)


def on_tcp(daemon: Daemon, path: str, token: str | None, **headers: str) -> tuple[int, Any]:
    """One GET on the loopback: status and JSON."""
    port = int((daemon.root / "http.port").read_text())
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    with closing(connection):
        bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request("GET", path, headers={**bearer, **headers})
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def token_of(daemon: Daemon) -> str:
    """The bearer as its file has it."""
    return (daemon.root / "local_token").read_text().strip()


def test_the_loopback_wants_the_token_on_every_route(alice: Daemon) -> None:
    """Health too; token and port are private; the socket asks for none."""
    assert stat.S_IMODE((alice.root / "local_token").stat().st_mode) == 0o600
    assert stat.S_IMODE((alice.root / "http.port").stat().st_mode) == 0o600
    for path in ("/v1/health", "/v1/metrics", "/v1/version", "/v1/openapi.json", "/nowhere"):
        assert on_tcp(alice, path, None)[0] == 401, path
        assert on_tcp(alice, path, token_of(alice) + "x")[0] == 401, path
    assert on_tcp(alice, "/v1/health", token_of(alice))[0] == 200
    assert alice.request("GET", "/v1/health")[0] == 200
    assert token_of(alice) not in alice.log.read_text()


def test_the_token_is_kept_over_a_restart(alice: Daemon) -> None:
    """Programs keep what they read; a stopped daemon leaves no port behind."""
    token = token_of(alice)
    assert alice.stop() == OK
    assert not (alice.root / "http.port").exists()
    alice.start()
    alice.ready()
    assert on_tcp(alice, "/v1/health", token)[0] == 200


def test_the_port_of_the_last_start_is_taken_again_unless_another_program_has_it(alice: Daemon) -> None:
    """A file with no port in it is no obstacle."""
    last = alice.root / "http.port.last"
    assert last.read_text() == (alice.root / "http.port").read_text()
    # A port that the kernel gives to no other connection meanwhile.
    port = free_port()
    assert restarted(alice, f"{port}\n") == port
    assert last.read_text() == f"{port}\n"
    with socket.socket() as other:
        alice.kill()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        assert restarted(alice, f"{port}\n") != port
    for text in ("none\n", "-1\n", "22\n", "70000\n", ""):
        assert restarted(alice, text) > 1023
    assert on_tcp(alice, "/v1/health", token_of(alice))[0] == 200


def restarted(daemon: Daemon, last_port: str) -> int:
    """Start a daemon again behind this port; return the one that it has."""
    if daemon.running:
        daemon.kill()
    (daemon.root / "http.port.last").write_text(last_port)
    daemon.start()
    daemon.ready()
    return int((daemon.root / "http.port").read_text())


def test_a_rotated_token_and_the_one_before_both_work(alice: Daemon) -> None:
    """For a minute, so that a program that has just read the file is not refused."""
    old = token_of(alice)
    assert run(alice.home, "daemon", "rotate-token").code == OK
    new = token_of(alice)
    assert new != old
    assert {on_tcp(alice, "/v1/health", token)[0] for token in (old, new)} == {200}
    assert run(alice.home, "daemon", "rotate-token").code == OK
    assert on_tcp(alice, "/v1/health", old)[0] == 401
    assert on_tcp(alice, "/v1/health", new)[0] == 200


def test_a_flood_on_the_loopback_is_slowed_and_leaves_the_socket_usable(alice: Daemon) -> None:
    """1,000 at once, then 100 a second; the socket has limits of its own."""
    port, token = int((alice.root / "http.port").read_text()), token_of(alice)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    statuses = []
    with closing(connection):
        while 429 not in statuses and len(statuses) < 20_000:
            connection.request("GET", "/v1/version", headers={"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
    assert statuses[:1000] == [200] * 1000
    assert statuses[-1] == 429
    assert alice.request("GET", "/v1/version")[0] == 200


def test_a_reload_takes_settings_over_without_dropping_the_link(alice: Daemon) -> None:
    """Origins, metrics, the open health check; what needs a restart is named."""
    reconnects = alice.log.read_text().count('"link_up"')
    assert alice.request("GET", "/v1/version", headers=ORIGIN)[0] == 403
    configure(
        alice,
        "[ipc]\ntcp_enabled = true\nhttp_port = 1\npublic_health_check = true\n"
        'allowed_origins = ["http://localhost:3000"]\n[metrics]\nprometheus_enabled = false\n',
    )
    done = run(alice.home, "daemon", "reload", "--json")
    assert done.code == OK
    assert done.json["needs_restart"] == ["[ipc] http_port"]
    assert alice.request("GET", "/v1/version", headers=ORIGIN)[0] == 200
    assert alice.request("GET", "/v1/metrics")[0] == 404
    assert on_tcp(alice, "/v1/health", None)[0] == 200
    assert on_tcp(alice, "/v1/version", None)[0] == 401
    assert alice.request("GET", "/v1/health")[1]["connected"]
    assert alice.log.read_text().count('"link_up"') == reconnects


def test_a_key_that_needs_a_restart_and_is_set_back_needs_none(alice: Daemon) -> None:
    """The file is compared with what is in force, however often it was reloaded."""
    configure(alice, '[ipc]\ntcp_enabled = true\n[features]\nrequire = ["max_payload"]\n')
    assert run(alice.home, "daemon", "reload", "--json").json["needs_restart"] == ["[features] require"]
    assert "max_payload" not in alice.request("GET", "/v1/compat")[1]["required_broker_features"]
    configure(alice, "[ipc]\ntcp_enabled = true\n")
    assert run(alice.home, "daemon", "reload", "--json").json["needs_restart"] == []
    configure(alice, '[features]\nrequire = ["max_payload"]\n')
    alice.stop()
    alice.start()
    alice.ready()
    assert "max_payload" in alice.request("GET", "/v1/compat")[1]["required_broker_features"]


def test_a_wait_for_the_broker_that_is_reloaded_shorter_ends() -> None:
    """Also the one that goes on: the link is tried again at once."""
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        alice.stop()
        made.broker.kill()
        configure(alice, "[reconnect]\ninitial_backoff_ms = 60000\nmax_backoff_ms = 3600000\n")
        alice.start()
        until(lambda: '"link_down"' in alice.log.read_text().splitlines()[-1], "it waits a minute")
        made.broker.start()
        made.broker.ready()
        configure(alice, "[reconnect]\ninitial_backoff_ms = 10\nmax_backoff_ms = 100\n")
        assert run(alice.home, "daemon", "reload").code == OK
        alice.ready()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[ipc]\nallowed_origins = "all"\n', "allowed_origins"),
        ("[ipc\n", "not TOML"),
        ("[outbox]\nmax_age_hours_override = 999999999\n", "max_age_hours_override"),
    ],
)
def test_a_wrong_value_at_a_reload_is_named_and_changes_nothing(alice: Daemon, text: str, named: str) -> None:
    """Exit 78, and the daemon goes on with what it had."""
    configure(alice, text)
    done = run(alice.home, "daemon", "reload")
    assert done.code == CONFIGURATION
    assert named in done.err
    status, health = alice.request("GET", "/v1/health")
    assert (status, health["connected"]) == (200, True)


def test_a_window_that_the_broker_forbids_is_refused_at_a_reload(alice: Daemon) -> None:
    """Only the daemon knows the broker's window; its refusal reaches the person all the same."""
    configure(alice, "[outbox]\nmax_age_hours_override = 80000\n")
    done = run(alice.home, "daemon", "reload")
    assert done.code == CONFIGURATION
    assert "dedupe" in done.err
    assert "dedupe" in alice.request("GET", "/v1/health")[1]["config"]["error"]


def test_sighup_reloads_too(alice: Daemon) -> None:
    """As supervisors do it."""
    configure(alice, "[metrics]\nprometheus_enabled = false\n")
    os.kill(alice.pid, signal.SIGHUP)
    until(lambda: alice.request("GET", "/v1/metrics")[0] == 404, "the settings are taken over")


def test_a_token_that_others_can_read_stops_the_start(alice: Daemon) -> None:
    """With the chmod that mends it; as a reload nothing changes."""
    (alice.root / "local_token").chmod(0o644)
    done = run(alice.home, "daemon", "reload")
    assert (done.code, "chmod 600" in done.err) == (CONFIGURATION, True)
    assert alice.request("GET", "/v1/health")[0] == 200
    alice.stop()
    started = run(alice.home, "daemon", "up", "-d")
    assert (started.code, "chmod 600" in started.err) == (PERMISSION, True)


def test_half_open_connections_on_the_loopback_leave_the_socket_usable(alice: Daemon) -> None:
    """400 that say nothing: past 256 they are closed at once, and the socket answers meanwhile."""
    port = int((alice.root / "http.port").read_text())
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(400)]
        assert alice.request("GET", "/v1/health")[0] == 200

        def closed() -> int:
            readable, _, _ = select.select(silent, [], [], 0)
            return len(readable)

        until(lambda: closed() >= 400 - 256, "what is too many is closed")
        assert alice.send("alice", "to myself")[0] == 200
    until(lambda: on_tcp(alice, "/v1/health", token_of(alice))[0] == 200, "the loopback answers again")


def test_a_feature_that_the_broker_lacks_ends_the_daemon_and_says_which(alice: Daemon) -> None:
    """Exit 78, once it is asked for: nothing is sent under other rules than the person wants."""
    assert alice.stop() == OK
    configure(alice, '[features]\nrequire = ["time_travel"]\n')
    done = run(alice.home, "daemon", "up", stdin=b"")
    assert (done.code, "time_travel" in done.err) == (CONFIGURATION, True)


def test_what_is_stuck_is_listed_without_a_verb(alice: Daemon) -> None:
    """`daemon outbox`, with --failed or without, is the list."""
    assert alice.send("alice", "to myself", client_message_id="mine")[0] == 200
    assert "mine" in run(alice.home, "daemon", "outbox").out
    assert run(alice.home, "daemon", "outbox", "--failed", "--json").json["items"] == []
