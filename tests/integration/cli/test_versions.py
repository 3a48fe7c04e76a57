"""A command and a daemon of different versions: what both can do works, the rest is refused with both
versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import claudemesh
from tests.support.cli import homes, run
from tests.support.processes import REPOSITORY, Mesh, mesh, until

CONFIGURATION = 78
_OLDER = "0.0.9"


def older_package(folder: Path) -> Path:
    """Return a folder with a copy of the package: an older version, without /v1/whoami."""
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


def test_a_command_that_the_daemon_is_too_old_for_names_both_versions(tmp_path: Path) -> None:
    older = older_package(tmp_path)
    with mesh("alice") as made:
        alice = made.daemons["alice"]
        home = alice.home
        alice.stop()
        environment = {**os.environ, "CLAUDEMESH_HOME": str(alice.home), "PYTHONPATH": str(older)}
        command = [sys.executable, "-m", "claudemesh", *alice.arguments]
        with subprocess.Popen(command, env=environment, cwd=older, stderr=subprocess.DEVNULL) as daemon:
            try:
                until(
                    lambda: alice.request("GET", "/v1/health")[1]["connected"], "the older daemon is linked"
                )
                refused = run(home, "whoami", "--json")
                said = run(home, "whoami").err
                sent = run(home, "send", "alice", "works on both")
                shown = run(home, "status").out
            finally:
                daemon.terminate()
    body = refused.json
    assert (refused.code, body["error"]) == (CONFIGURATION, "unsupported")
    assert (body["daemon_version"], body["version"]) == (_OLDER, claudemesh.__version__)
    assert _OLDER in said
    assert claudemesh.__version__ in said
    assert "try: claudemesh daemon restart" in said
    assert sent.code == 0
    assert f"{_OLDER} (this command: {claudemesh.__version__})" in shown


def test_version_tells_the_features_of_the_broker_that_is_linked(pair: Mesh) -> None:
    told = pair.daemons["alice"].request("GET", "/v1/version")[1]
    assert told["broker"]["version"] == claudemesh.__version__
    assert told["broker"]["features"]["client_message_id_dedupe"]["dedupe_retention_days"] >= 7


def test_a_missing_thing_on_a_daemon_of_the_same_version_is_not_a_question_of_versions(pair: Mesh) -> None:
    missing = run(homes(pair)[0], "reply", "999999", "x", "--json")
    assert missing.json["error"] != "unsupported"
