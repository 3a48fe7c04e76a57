"""The bot of docs/examples, on alice's host, with the worker of the same folder on bob's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.processes import REPOSITORY, Daemon, Mesh, until

EXAMPLES = REPOSITORY / "docs/examples"


@contextmanager
def running(daemon: Daemon, command: Sequence[str | Path], folder: Path) -> Generator[None]:
    """A program on a daemon's host, which is killed at the end."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")}
    environment = {**kept, "CLAUDEMESH_HOME": str(daemon.home)}
    with (folder / "program.log").open("ab") as log:
        program = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            yield
        finally:
            program.kill()
            program.wait()


def python_program(name: str, folder: Path) -> list[str]:
    """Put an example in Python and the SDK into a folder, as a reader does, and return the command."""
    text = (EXAMPLES / name).read_text().replace("from claudemesh import", "from claudemesh_sdk import")
    (folder / name).write_text(text)
    shutil.copy(REPOSITORY / "claudemesh/sdk.py", folder / "claudemesh_sdk.py")
    return [sys.executable, "-W", "error", str(folder / name)]


def check_bot(team: Mesh, command: Sequence[str | Path], folder: Path, version: str) -> None:
    """Run the bot through restarts of its daemon and of itself. Everything is done once."""
    alice, bob = team.daemons["alice"], team.daemons["bob"]
    (folder / "build.log").write_text(f"the log of {version}")
    words = [*command, version, "bob", "build.log"]

    def received(**wanted: Any) -> list[dict[str, Any]]:
        return [one for one in bob.inbox() if all(one[name] == value for name, value in wanted.items())]

    def orders() -> list[dict[str, Any]]:
        return received(kind="queue", body=version)

    def answers() -> list[dict[str, Any]]:
        return received(kind="dm", body=f"{version} is live")

    for name in ("queue:builds", "releases"):
        bob.request("POST", "/v1/topic/create", {"topic": name})
        bob.request("POST", "/v1/topic/subscribe", {"topic": name})
    with running(alice, words, folder):
        until(orders, "the order has come")
        alice.kill()
        alice.start()
        alice.ready()
        with running(bob, python_program("worker.py", folder), folder):
            until(lambda: received(body=f"The log of {version}"), "the log is shared")
        bob.send("alice", "status", client_message_id=f"{version}-1")
        until(answers, "the question is answered")
    bob.send("alice", "status", client_message_id=f"{version}-2")
    with running(alice, words, folder):
        until(lambda: len(answers()) == 2, "the bot of the second start has gone through everything")
    [post] = received(topic="releases", body=f"{version}: built {version!r}")
    assert post["mentioned"]
    [log] = received(body=f"The log of {version}")
    assert [one["name"] for one in log["attachments"]] == ["build.log"]
    assert len(orders()) == 1
    until(lambda: all(one["acked_at"] for one in alice.inbox()), "everything is acknowledged")
