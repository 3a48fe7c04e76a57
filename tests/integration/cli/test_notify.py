"""A daemon and a broker notify their service manager from start to end, and no child inherits its socket."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager

from tests.integration.hooks.hooked import Host
from tests.support.processes import Process, mesh, until


class Manager:
    """The socket of a service manager, and every message that came to it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._found: list[str] = []

    def told(self) -> list[str]:
        """Return the lines so far, without the state and the pings."""
        while select.select([self._sock], [], [], 0)[0]:
            self._found += self._sock.recv(4096).decode().split("\n")
        return [line for line in self._found if not line.startswith(("STATUS", "WATCHDOG", "MONOTONIC"))]

    def last_status(self) -> str:
        self.told()
        return next((line for line in reversed(self._found) if line.startswith("STATUS=")), "")

    def pings(self) -> int:
        self.told()
        return self._found.count("WATCHDOG=1")


@contextmanager
def managed(process: Process) -> Generator[Manager]:
    """Give a process a service manager with a watchdog, from its next start on."""
    name = f"claudemesh-{os.getpid()}-{id(process)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        process.environment |= {"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "200000"}
        yield Manager(sock)


def test_a_daemon_tells_ready_reloading_stopping_its_state_and_that_its_loop_runs() -> None:
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        with managed(alice) as manager:
            alice.start()
            alice.ready()
            until(lambda: manager.told() == ["READY=1"], "ready")
            connected = f"STATUS=alice in mesh demo, connected to {made.broker.url}"
            until(lambda: manager.last_status() == connected, "its state")
            seen = manager.pings()
            until(lambda: manager.pings() > seen + 2, "pings")
            os.kill(alice.pid, signal.SIGHUP)
            until(lambda: manager.told() == ["READY=1", "RELOADING=1", "READY=1"], "reloaded")
            made.broker.stop()
            until(lambda: "not connected" in manager.last_status(), "the lost link")
            assert alice.stop() == 0
            assert manager.told()[3:] == ["STOPPING=1"]


def test_a_broker_tells_ready_and_stopping_and_a_failed_start_tells_neither() -> None:
    with mesh("alice", start=False) as made:
        broker = made.broker
        broker.stop()
        with managed(broker) as manager:
            broker.start()
            until(lambda: manager.told() == ["READY=1"], "ready")
            until(lambda: f"0 connections at {broker.url}" in manager.last_status(), "its state")
            until(lambda: manager.pings() > 2, "pings")
            assert broker.stop() == 0
            assert manager.told() == ["READY=1", "STOPPING=1"]
            broker.environment["CLAUDEMESH_BROKER_INLINE_BYTES"] = "wrong"
            broker.start()
            assert broker.ended() == 78
            assert manager.told() == ["READY=1", "STOPPING=1"]


def test_a_hook_does_not_know_of_the_service_manager() -> None:
    with mesh("alice", "bob", start=False) as made:
        alice, bob = made.daemons.values()
        host = Host(bob)
        host.script("on-dm", "cat >/dev/null; env >$OUT/env")
        host.manifest(on_dm={})
        with managed(bob):
            for daemon in (alice, bob):
                daemon.start()
            for daemon in (alice, bob):
                daemon.ready()
            assert alice.send("bob", "hello")[0] == 202
            host.ran("on-dm")
            assert "NOTIFY_SOCKET" not in host.told("env")
            assert "WATCHDOG" not in host.told("env")
