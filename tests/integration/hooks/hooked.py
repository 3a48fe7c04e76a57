"""Hosts with hooks: scripts and hooks.toml put where a user puts them."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

from tests.support.audit import rows
from tests.support.processes import Daemon, until

ENABLED = "[hooks]\nenabled = true\n"


_SLEEP = re.compile(r"sleep (9\d\d)\b")


def own(script: str) -> str:
    """A script whose long sleeps are those of this test run: /proc shows the processes of others too."""
    return _SLEEP.sub(rf"sleep \1.{os.getpid()}", script)


def processes(marker: str) -> list[str]:
    """Command lines of living processes of this test run that contain a marker, `sleep 9…`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            dead = b") Z " in (folder / "stat").read_bytes()
        except OSError:
            continue
        if own(marker) in line and not dead:
            found.append(line)
    return found


class Host:
    """One daemon's hooks: written, reloaded, and what they left behind."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.folder = daemon.root / "hooks"
        self.folder.mkdir(mode=0o700, exist_ok=True)
        # CI switches hooks off unless the user says otherwise.
        config = daemon.root / "config.toml"
        if ENABLED not in config.read_text():
            config.write_text(config.read_text() + ENABLED)
        # Out of the hooks' folder, so that a sandbox does not hide it.
        self.out = daemon.home / "out"
        self.out.mkdir(exist_ok=True)

    def script(self, name: str, body: str, mode: int = 0o700) -> Path:
        """A shell script; $OUT is a folder for what it wants to tell the test."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\nOUT={self.out}\n{own(body)}\n")
        path.chmod(mode)
        return path

    def manifest(self, **entries: dict[str, Any]) -> None:
        """Write hooks.toml; `on_dm` stands for on-dm."""
        lines = []
        for name, entry in entries.items():
            lines.append(f"[{name.replace('_', '-')}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
        (self.folder / "hooks.toml").write_text("\n".join(lines) + "\n")

    def reload(self) -> None:
        """SIGHUP, and wait until it is done."""
        before = self.health()["config"]["reloads"]
        os.kill(self.daemon.pid, signal.SIGHUP)
        until(lambda: self.health()["config"]["reloads"] > before, "reloaded")

    def health(self) -> Any:
        return self.daemon.request("GET", "/v1/health")[1]

    def log(self, event: str) -> list[dict[str, Any]]:
        """The log's lines of one event."""
        lines = (json.loads(line) for line in self.daemon.log.read_text().splitlines() if line[:1] == "{")
        return [line for line in lines if line["event"] == event]

    def runs(self, hook: str) -> list[dict[str, Any]]:
        """The audit lines of one hook."""
        return [line for line in self.log("hook_run") if line["hook"] == hook]

    def ran(self, hook: str, times: int = 1) -> dict[str, Any]:
        """Wait until a hook has run so often; returns the last audit line."""
        until(lambda: len(self.runs(hook)) >= times, f"{hook} has run")
        return self.runs(hook)[times - 1]

    def told(self, name: str) -> str:
        """Return the content that a script left in $OUT."""
        return (self.out / name).read_text()

    def idle(self) -> bool:
        """Whether no send waits and no hook is left to run."""
        waiting = "SELECT count(*) FROM outbox WHERE status IN ('pending', 'inflight')"
        jobs = "SELECT count(*) FROM hook_jobs"
        root = self.daemon.root
        return rows(root / "outbox.db", waiting) == rows(root / "inbox.db", jobs) == [(0,)]

    def metric(self, name: str) -> str:
        """The lines of one metric."""
        import http.client

        from tests.support.processes import _SocketConnection

        connection: http.client.HTTPConnection = _SocketConnection(self.daemon.sock)
        connection.request("GET", "/v1/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return "\n".join(line for line in text.splitlines() if line.startswith(name))
