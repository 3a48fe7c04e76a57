"""`doctor` and `bugreport`: on a healthy peer and on one with faults."""

from __future__ import annotations

import json
import shutil
from typing import Any

from tests.support.audit import wait_received
from tests.support.cli import Ran, homes, run
from tests.support.processes import Mesh, mesh, until

OK, UNAVAILABLE = 0, 69


def findings(done: Ran) -> dict[str, Any]:
    """The doctor's findings by what was looked at."""
    return {item["check"]: item for item in done.json["items"]}


def test_the_doctor_finds_nothing_in_a_healthy_peer(pair: Mesh) -> None:
    """Exit 0, and every check says what it looked at."""
    alice, _ = homes(pair)
    done = run(alice, "doctor", "--json")
    assert {item["state"] for item in done.json["items"]} == {"ok"}
    assert done.code == OK
    checked = {"home", "keys", "config.toml", "disk", "daemon", "link", "clock", "broker"}
    assert checked <= findings(done).keys()


def test_the_doctor_names_what_is_wrong_and_what_to_do() -> None:
    """Modes, settings, a stale socket, a damaged database, a broker that is away."""
    with mesh("alice") as made:
        daemon = made.daemons["alice"]
        made.broker.kill()
        until(lambda: not daemon.request("GET", "/v1/health")[1]["connected"], "the link is down")
        running = findings(run(daemon.home, "doctor", "--json"))
        assert (running["link"]["state"], running["broker"]["state"]) == ("failed", "failed")
        daemon.kill()
        (daemon.root / "keypair.json").chmod(0o644)
        (daemon.root / "config.toml").write_text("[daemon]\nlog_level = 7\n")
        (daemon.root / "outbox.db-wal").unlink()
        (daemon.root / "outbox.db").write_bytes(b"no database" * 1000)
        done = run(daemon.home, "doctor", "--json")
        assert done.code == UNAVAILABLE
        found = findings(done)
        assert "chmod 600" in found["keys"]["remedy"]
        assert "log_level" in found["config.toml"]["detail"]
        assert "socket is left" in found["daemon"]["detail"]
        assert found["outbox.db"]["state"] == "failed"
        assert found["inbox.db"]["state"] == "ok"
        assert "FAILED   keys" in run(daemon.home, "doctor").out
    with mesh(start=False) as made:
        assert run(made.root / "nowhere", "doctor").code == UNAVAILABLE


def test_a_bug_report_holds_no_secret(pair: Mesh) -> None:
    """Keys, tokens and bodies stay here."""
    alice, bob = homes(pair)
    run(alice, "send", "bob", "canary-body")
    received = run(bob, "send", "alice", "canary-body", "--json").json["client_message_id"]
    daemon = pair.daemons["alice"]
    wait_received(daemon, [received])
    shutil.copy(daemon.log, daemon.root / "daemon.log")
    text = run(alice, "bugreport").out
    assert json.loads(text)["health"]["mesh"] == "demo"
    assert "canary-body" not in text
    keys = json.loads((daemon.root / "keypair.json").read_text())
    secrets = [value for name, value in keys.items() if "priv" in name or "seed" in name]
    assert secrets
    assert not any(secret in text for secret in secrets)
