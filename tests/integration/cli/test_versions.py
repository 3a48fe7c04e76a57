"""Commands, daemons and brokers of different versions: what all can do works, the rest is refused with both
versions."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import claudemesh
from tests.support.audit import wait_done
from tests.support.cli import homes, run
from tests.support.processes import REPOSITORY, Daemon, Mesh, Process, mesh

CONFIGURATION = 78
_OLDER = "0.0.9"


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a copy of the package: an older version, without /v1/whoami."""
    folder = tmp_path_factory.mktemp("older")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "claudemesh", folder / "claudemesh", ignore=ignored)
    package = folder / "claudemesh" / "__init__.py"
    package.write_text(package.read_text().replace(claudemesh.__version__, _OLDER))
    status = folder / "claudemesh" / "daemon" / "api" / "status.py"
    lines = status.read_text().splitlines(keepends=True)
    kept = [line for line in lines if 'Route("GET", "/v1/whoami"' not in line]
    assert len(kept) == len(lines) - 1
    status.write_text("".join(kept))
    return folder


def start_older(process: Process, older: Path) -> None:
    """Start a daemon or broker of the older version."""
    process.prefix = ["env", "-C", str(older)]
    process.command = [sys.executable, "-m", "claudemesh"]
    process.environment["PYTHONPATH"] = str(older)
    process.start()


def told_of_versions(daemon: Daemon) -> dict[str, Any]:
    """The doctor's finding about versions."""
    items = run(daemon.home, "doctor", "--json").json["items"]
    found: dict[str, Any] = next(item for item in items if item["check"] == "version")
    return found


def test_a_command_that_the_daemon_is_too_old_for_names_both_versions(older: Path) -> None:
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        home = alice.home
        start_older(alice, older)
        alice.ready()
        refused = run(home, "whoami", "--json")
        said = run(home, "whoami").err
        sent = run(home, "send", "alice", "works on both")
        shown = run(home, "status").out
        found = told_of_versions(alice)
    body = refused.json
    assert (refused.code, body["error"]) == (CONFIGURATION, "unsupported")
    assert (body["daemon_version"], body["version"]) == (_OLDER, claudemesh.__version__)
    assert _OLDER in said
    assert claudemesh.__version__ in said
    assert "try: claudemesh daemon restart" in said
    assert sent.code == 0
    assert f"{_OLDER} (this command: {claudemesh.__version__})" in shown
    assert (found["code"], found["next"]) == ("daemon_version", "claudemesh daemon restart")
    assert _OLDER in found["detail"]


def test_a_broker_of_an_older_version_serves_and_is_named_by_doctor(older: Path) -> None:
    with mesh("alice", start=False) as made:
        alice = made.daemons["alice"]
        made.broker.stop()
        start_older(made.broker, older)
        made.broker.ready()
        alice.start()
        alice.ready()
        sent = alice.send("#all", "works on both")[1]["client_message_id"]
        wait_done(alice, [sent])
        found = told_of_versions(alice)
    assert found["code"] == "broker_version"
    assert found["detail"] == f"the daemon has version {claudemesh.__version__}, the broker {_OLDER}"
    assert found["remedy"].endswith("Upgrade the broker.")


def test_version_tells_the_features_of_the_broker_that_is_linked(pair: Mesh) -> None:
    told = pair.daemons["alice"].request("GET", "/v1/version")[1]
    assert told["broker"]["version"] == claudemesh.__version__
    assert told["broker"]["features"]["client_message_id_dedupe"]["dedupe_retention_days"] >= 7


def test_a_missing_thing_on_a_daemon_of_the_same_version_is_not_a_question_of_versions(pair: Mesh) -> None:
    missing = run(homes(pair)[0], "reply", "999999", "x", "--json")
    assert missing.json["error"] != "unsupported"
