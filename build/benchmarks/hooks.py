"""A hook for every message, against the same program run by `subprocess` alone."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from benchmarks.lab import Lab, load, received
from benchmarks.size import size
from tests.support.processes import Daemon, until

_MESSAGES = size(3840, 64)
_ALONE = size(1500, 16)
_AT_A_TIME = 8
_HOOK = "#!/bin/sh\nread -r event\nexit 0\n"


def rate(lab: Lab) -> tuple[float, float]:
    """Runs/s of bob's on-dm; the ceiling is the same script from as many threads of a plain program."""
    hook = _enable(lab.bob)
    return _runs(lab), _alone(hook)


def rate_alone(lab: Lab) -> float:
    """Runs/s of bob's on-dm."""
    _enable(lab.bob)
    return _runs(lab)


def _runs(lab: Lab) -> float:
    before = received(lab.bob)
    load(lab.alice, "bob", 64, _MESSAGES)
    until(lambda: received(lab.bob) >= before + _MESSAGES, "all of it has arrived")
    # From here on bob does nothing but run hooks.
    waiting, started = _jobs(lab.bob), time.perf_counter()
    until(lambda: _jobs(lab.bob) == 0, "every hook has run")
    seconds = time.perf_counter() - started
    (lab.bob.root / "hooks" / "hooks.toml").unlink()
    os.kill(lab.bob.pid, signal.SIGHUP)
    return waiting / seconds


def _alone(hook: Path) -> float:
    event = b'{"body":"' + b"x" * 1024 + b'"}\n'

    def run(_: int) -> None:
        subprocess.run([hook], input=event, capture_output=True, check=True)

    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        started = time.perf_counter()
        list(threads.map(run, range(_ALONE)))
        return _ALONE / (time.perf_counter() - started)


def _enable(daemon: Daemon) -> Path:
    folder = daemon.root / "hooks"
    folder.mkdir(mode=0o700, exist_ok=True)
    hook = folder / "on-dm"
    hook.write_text(_HOOK)
    hook.chmod(0o700)
    (folder / "hooks.toml").write_text("[on-dm]\n")
    config = daemon.root / "config.toml"
    if "[hooks]" not in config.read_text():
        # CI would switch them off.
        config.write_text(config.read_text() + "[hooks]\nenabled = true\n")
    reloads = daemon.request("GET", "/v1/health")[1]["config"]["reloads"]
    os.kill(daemon.pid, signal.SIGHUP)
    until(lambda: daemon.request("GET", "/v1/health")[1]["config"]["reloads"] > reloads, "reloaded")
    return hook


def _jobs(daemon: Daemon) -> int:
    with closing(sqlite3.connect(f"file:{daemon.root}/inbox.db?mode=ro", uri=True)) as database:
        count: int = database.execute("SELECT count(*) FROM hook_jobs").fetchone()[0]
    return count
