"""`daemon ps`, `logs`, `metrics`, `restart` and `paths`: with real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.support.cli import begin, homes, run
from tests.support.processes import Mesh, mesh, until

OK, UNAVAILABLE, CONFIGURATION = 0, 69, 78


def test_ps_lists_daemons_that_run_and_that_do_not(pair: Mesh) -> None:
    """By asking them, not by their pid files."""
    alice, _ = homes(pair)
    # The files that joining writes. Other files change while the daemon runs.
    (alice / "daemon/other").mkdir(mode=0o700)
    for name in ("membership.json", "keypair.json"):
        shutil.copy(alice / "daemon/demo" / name, alice / "daemon/other")
    try:
        items = {item["mesh"]: item for item in run(alice, "daemon", "ps", "--json").json["items"]}
    finally:
        shutil.rmtree(alice / "daemon/other")
    assert (items["demo"]["state"], items["demo"]["link"]) == ("up", "up")
    assert (items["other"]["state"], items["other"]["name"], items["other"]["pid"]) == ("down", "alice", None)


def test_metrics_are_printed_as_they_are_or_as_json(pair: Mesh) -> None:
    """Prometheus' text, or a number for each sample."""
    alice, _ = homes(pair)
    assert "# TYPE cm_daemon_connected gauge" in run(alice, "daemon", "metrics").out
    assert run(alice, "daemon", "metrics", "--json").json["cm_daemon_connected"] == 1


def test_logs_show_the_end_and_follow_over_a_rotation() -> None:
    """For people: a line for each event. Nothing is lost when the file is moved away."""
    with mesh("alice") as made:
        daemon = made.daemons["alice"]
        assert daemon.stop() == OK
        assert run(daemon.home, "logs").code == CONFIGURATION
        assert run(daemon.home, "daemon", "up", "-d").code == OK
        try:
            assert "daemon_started  mesh=demo" in run(daemon.home, "logs").out
            assert json.loads(run(daemon.home, "logs", "-n", "1", "--json").out)["event"]
            assert run(daemon.home, "logs", "-n", "0").out == ""
            log = daemon.root / "daemon.log"
            with begin(daemon.home, "logs", "-f", "-n", "0") as following:
                with log.open("ab") as file:
                    until(lambda: write(file, {"event": "first"}) and readable(following), "it follows")
                log.rename(log.with_suffix(".log.1"))
                log.write_bytes(json.dumps({"event": "second"}).encode() + b"\n")
                assert following.stdout is not None
                assert any(b"second" in line for line in following.stdout)
        finally:
            assert run(daemon.home, "daemon", "down").code == OK


def write(file: Any, event: dict[str, str]) -> bool:
    """Append a log line."""
    file.write(json.dumps(event).encode() + b"\n")
    file.flush()
    return True


def readable(process: subprocess.Popen[bytes]) -> bool:
    """Whether its output has something to read."""
    import select

    return bool(select.select([process.stdout], [], [], 0.2)[0])


def test_paths_name_every_file(pair: Mesh) -> None:
    """Those that are not there too."""
    alice, _ = homes(pair)
    found = run(alice, "paths", "--json").json
    assert Path(found["sock"]).is_socket()
    assert "(missing)" in run(alice, "paths").out


def test_restart_comes_back_with_what_was_queued() -> None:
    """With its broker, when that was inside."""
    with mesh("alice") as made:
        daemon = made.daemons["alice"]
        assert daemon.request("POST", "/v1/topic/create", {"topic": "news"})[0] in (200, 201)
        daemon.stop()
        made.broker.kill()
        assert run(daemon.home, "daemon", "up", "-d").code == OK
        try:
            before = daemon.request("GET", "/v1/health")[1]["pid"]
            assert daemon.post("news", "kept", client_message_id="kept")[0] == 202
            assert run(daemon.home, "daemon", "restart").code == OK
            assert daemon.request("GET", "/v1/health")[1]["pid"] != before
            assert daemon.outbox()["kept"]["status"] == "pending"
        finally:
            run(daemon.home, "daemon", "down")


def test_restart_after_a_crash_brings_the_broker_back_with_the_daemon() -> None:
    """The options of the last start are kept; a start without the option forgets it."""
    with mesh("alice", start=False) as made:
        daemon = made.daemons["alice"]
        home = daemon.home
        assert made.broker.stop() == OK
        shutil.move(made.broker.data, home / "broker")
        assert run(home, "daemon", "up", "-d", "--with-broker").code == OK
        try:
            health = daemon.request("GET", "/v1/health")[1]
            assert health["with_broker"]
            os.kill(health["pid"], signal.SIGKILL)
            until(lambda: run(home, "status").code == UNAVAILABLE, "it is gone")
            assert run(home, "daemon", "restart").code == OK
            assert daemon.request("GET", "/v1/health")[1]["with_broker"]
            assert run(home, "daemon", "down").code == OK
            assert run(home, "daemon", "up", "-d").code == OK
            assert run(home, "daemon", "restart").code == OK
            assert not daemon.request("GET", "/v1/health")[1]["with_broker"]
        finally:
            run(home, "daemon", "down")


def test_logs_are_selected_by_time_and_level_over_rotated_files() -> None:
    """A line that is not one of ours, such as one of a crash, is always shown."""
    with mesh("alice", start=False) as made:
        daemon = made.daemons["alice"]

        def line(hour: int, level: str, event: str) -> str:
            return json.dumps({"ts": f"2026-01-02T{hour:02}:00:00.000+00:00", "level": level, "event": event})

        log = daemon.root / "daemon.log"
        log.with_name("daemon.log.2").write_text(f"{line(1, 'error', 'oldest')}\n")
        log.with_name("daemon.log.1").write_text(f"{line(2, 'info', 'older')}\n{line(3, 'error', 'old')}\n")
        log.write_text(f"{line(4, 'warning', 'new')}\nSegmentation fault\n{line(5, 'info', 'newest')}\n")

        def shown(*options: str) -> list[str]:
            lines = run(daemon.home, "logs", *options).out.splitlines()
            return [text.split()[-1] for text in lines]

        assert shown() == ["new", "fault", "newest"]
        assert shown("--level", "warning") == ["new", "fault"]
        assert shown("--level", "warning", "-n", "1") == ["fault"]
        assert shown("--since", "2026-01-02T02:00:00Z") == ["older", "old", "new", "fault", "newest"]
        assert shown("--since", "2026-01-02T04:00:00+02:00", "--level", "error") == ["old", "fault"]
        assert shown("--since", "2026-01-02T02:00:00Z", "-n", "2") == ["fault", "newest"]
