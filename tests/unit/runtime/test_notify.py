"""Notification of a service manager: a datagram a message, from the event loop."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from claudemesh.runtime.notify import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[tuple[str, socket.socket]]:
    """A manager's socket, and its address as NOTIFY_SOCKET names it."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@claudemesh-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(address.replace("@", "\0", 1))
        made.setblocking(False)
        yield address, made


def messages(listener: socket.socket) -> list[str]:
    found = []
    while select.select([listener], [], [], 0)[0]:
        found.append(listener.recv(4096).decode())
    return found


def test_the_environment_names_the_manager_and_children_do_not_inherit_it(
    listener: tuple[str, socket.socket],
) -> None:
    address, sock = listener
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
    manager = ServiceManager.of(environ)
    assert environ == {"A": "b"}
    manager.ready()
    with manager.reloading():
        [ready, reloading] = messages(sock)
        assert ready == "READY=1"
        assert reloading.split("\n")[0] == "RELOADING=1"
        assert reloading.split("\n")[1].startswith("MONOTONIC_USEC=")
    manager.stopping()
    assert messages(sock) == ["READY=1", "STOPPING=1"]


@pytest.mark.parametrize(
    ("usec", "pid", "pings"),
    [("1000", "", True), ("1000", "1", False), ("0", "", False), ("soon", "", False), ("", "", False)],
)
async def test_the_watchdog_gets_pings_only_when_it_wants_them_from_this_process(
    listener: tuple[str, socket.socket], usec: str, pid: str, pings: bool
) -> None:
    address, sock = listener
    manager = ServiceManager.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid})
    task = asyncio.get_running_loop().create_task(manager.run(lambda: "a\nREADY=0"))
    found: list[str] = []
    while not any(message.startswith("STATUS=") for message in found):
        await asyncio.sleep(0)
        found += messages(sock)
    assert "STATUS=a READY=0" in found
    assert ("WATCHDOG=1" in found) == pings
    task.cancel()


async def test_a_loop_that_is_stuck_sends_no_pings(listener: tuple[str, socket.socket]) -> None:
    address, sock = listener
    manager = ServiceManager(address, 0.003)
    task = asyncio.get_running_loop().create_task(manager.run(lambda: ""))
    found: list[str] = []
    while found.count("WATCHDOG=1") < 3:
        await asyncio.sleep(0.001)
        found += messages(sock)
    assert not select.select([sock], [], [], 0.1)[0]
    task.cancel()


async def test_no_manager_or_one_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    for manager in (ServiceManager(), ServiceManager(str(tmp_path / "gone")), ServiceManager("a" * 200)):
        manager.ready()
        with manager.reloading():
            pass
        manager.stopping()
    await ServiceManager().run(lambda: "never asked")


async def test_a_manager_that_does_not_read_does_not_block(listener: tuple[str, socket.socket]) -> None:
    address, sock = listener
    manager = ServiceManager(address)
    for _ in range(10_000):
        manager.ready()
    assert 0 < len(messages(sock)) < 10_000
