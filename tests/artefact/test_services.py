"""Services under a real systemd: installed, started, watched, reloaded and removed, with a hook."""

from __future__ import annotations

import json
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import free_port, until
from tests.support.pyz import PYZ, python_for_nobody
from tests.support.systemd import USER, Systemd, systemd

PROGRAM = "/srv/claudemesh.pyz"
HOME, DATA = "/srv/mesh", "/srv/data"
DAEMON, BROKER = "claudemesh@team.service", "claudemesh-broker.service"
TEMPLATE = "claudemesh@.service"
# The hook tells where it runs, and tries to write where it must not.
HOOK = """#!/bin/sh
cat >/dev/null
touch /srv/else/file 2>/srv/mesh/refused
{ echo "pid $$"; echo "net $(wc -l </proc/net/dev)"; echo "first $(cat /proc/1/comm)"; } >/srv/mesh/ran
"""


class Services:
    """A systemd with claudemesh on its disk."""

    def __init__(self, manager: Systemd) -> None:
        self.manager = manager
        self.python, user = python_for_nobody()
        if user is None:
            pytest.skip("no Python that another user can run is installed")
        manager.put(PYZ, PROGRAM)
        self.url = f"127.0.0.1:{free_port()}"
        manager.write(f"{DATA}/broker.toml", f'listen = "{self.url}"\n')

    def cli(self, *arguments: str, user: int = USER, code: int = 0) -> str:
        """Run a command."""
        return self.manager.run(self.python, "-IS", PROGRAM, *arguments, user=user, code=code)

    def install(self, group: str, *arguments: str) -> None:
        """Install and start a service."""
        self.cli(group, "install-service", "--user", "--allow-ci-persistent", "--now", *arguments)

    def pid(self) -> int:
        return int(self.manager.show(DAEMON, "MainPID"))

    def status(self, unit: str = DAEMON) -> str:
        return self.manager.show(unit, "StatusText")

    def state(self, unit: str = DAEMON) -> str:
        return self.manager.show(unit, "ActiveState")

    def health(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.cli("status", "--json"))
        return found


@pytest.fixture(scope="module")
def services(pyz: Path) -> Generator[Services]:
    """A broker and a daemon that were installed and started as services."""
    with systemd() as manager:
        made = Services(manager)
        made.install("broker", "--data-dir", DATA)
        token = ("--admin-token-file", f"{DATA}/admin_token")
        made.cli("mesh", "create", "team", "--name", "alice", "--broker", f"ws://{made.url}", *token)
        hooks = f"{HOME}/daemon/team/hooks"
        manager.write(f"{hooks}/on-startup", HOOK, "0700")
        manager.write(f"{hooks}/hooks.toml", "[on-startup]\n")
        made.install("daemon")
        yield made


def test_both_are_active_and_show_their_state(services: Services) -> None:
    assert services.state(BROKER) == services.state() == "active"
    until(lambda: "alice in mesh team, connected to ws://" in services.status(), "the daemon is connected")
    until(lambda: services.status(BROKER).startswith("1 connections at ws://"), "the broker shows it")
    assert services.health()["connected"] is True
    assert services.manager.show(DAEMON, "NRestarts") == "0"


def hook_is_isolated(services: Services) -> None:
    """Wait for the hook of a start, and read what it tells."""
    until(lambda: "first" in services.manager.run("cat", f"{HOME}/ran", code=None), "the hook has run")
    told = dict(line.split(" ", 1) for line in services.manager.run("cat", f"{HOME}/ran").splitlines())
    # A PID namespace uses few numbers. Without a network there are a head of two lines and the loopback.
    assert int(told["pid"]) < 10
    assert int(told["net"]) == 3
    # A /proc of its own, which shows the worker as the first process.
    assert told["first"].startswith("python")
    assert "Read-only file system" in services.manager.run("cat", f"{HOME}/refused")


def test_a_hook_runs_isolated_and_writes_to_the_home_alone(services: Services) -> None:
    hook_is_isolated(services)


def test_a_hook_runs_under_the_confinement_of_a_unit_of_the_system(services: Services) -> None:
    """Its text with a user namespace in place of the rights of the system's manager."""
    text = services.cli("daemon", "install-service", "--system", "--print", user=0)
    assert "\nUser=nobody\n" in text
    file = f"/srv/home/.config/systemd/user/{TEMPLATE}"
    services.manager.write(file, text.replace("\nUser=nobody\n", "\nPrivateUsers=yes\n"), "0644")
    services.manager.run("rm", f"{HOME}/ran", f"{HOME}/refused")
    services.manager.systemctl("daemon-reload")
    services.manager.systemctl("restart", DAEMON)
    hook_is_isolated(services)
    services.install("daemon")


def test_reload_reads_the_settings_and_keeps_the_process(services: Services) -> None:
    before, pid = services.health()["config"]["reloads"], services.pid()
    services.manager.systemctl("reload", DAEMON)
    until(lambda: services.health()["config"]["reloads"] > before, "reloaded")
    assert services.pid() == pid
    assert services.state() == "active"


def test_restart_by_the_command_line_is_one_by_systemd(services: Services) -> None:
    """The daemon stays a process of its unit."""
    pid = services.pid()
    assert "restarted the service" in services.cli("daemon", "restart")
    assert services.state() == "active"
    assert services.pid() not in (0, pid)


def test_a_killed_daemon_and_a_stuck_one_are_started_again(services: Services) -> None:
    quick = "[Service]\nRestartSec=10ms\nWatchdogSec=1s\n[Unit]\nStartLimitBurst=100\n"
    file = f"/etc/systemd/user/{TEMPLATE}.d/quick.conf"
    services.manager.write(file, quick, "0644", user=0)
    services.manager.systemctl("daemon-reload")
    services.manager.systemctl("restart", DAEMON)
    for number in (signal.SIGKILL, signal.SIGSTOP):
        pid = services.pid()
        services.manager.run("kill", f"-{int(number)}", str(pid), user=0)
        until(lambda pid=pid: services.pid() not in (0, pid), f"started again after {number.name}")  # type: ignore[misc]
        until(lambda: services.state() == "active", "active")
    assert services.manager.show(DAEMON, "NRestarts") == "2"
    services.manager.run("rm", file, user=0)
    services.manager.systemctl("daemon-reload")


def test_a_wrong_configuration_is_not_started_again(services: Services) -> None:
    config = f"{HOME}/daemon/team/config.toml"
    services.manager.write(config, "wrong = 1\n")
    try:
        services.manager.systemctl("restart", DAEMON, code=1)
        assert services.state() == "failed"
        assert services.manager.show(DAEMON, "ExecMainStatus") == "78"
        assert services.manager.show(DAEMON, "NRestarts") == "0"
    finally:
        services.manager.write(config, "")
    services.install("daemon")
    assert services.state() == "active"


def test_removal_stops_the_daemon_and_leaves_its_files(services: Services) -> None:
    for group, unit in (("daemon", DAEMON), ("broker", BROKER)):
        assert services.manager.systemctl("is-enabled", unit).strip() == "enabled"
        services.cli(group, "uninstall-service", "--user")
        assert services.state(unit) == "inactive"
        assert services.manager.show(unit, "LoadState") == "not-found"
        assert "is not installed" in services.cli(group, "uninstall-service", "--user")
    assert "team" in services.manager.run("cat", f"{HOME}/daemon/team/membership.json")
