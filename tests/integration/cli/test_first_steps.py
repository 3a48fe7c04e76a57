"""The first page of the help: its first steps, pasted by a newcomer, end with a message that is read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.cli import run
from tests.support.namespaces import missing, two_namespaces
from tests.support.processes import REPOSITORY, until
from tests.support.waiting import WAIT_S

reason = missing()


def test_the_first_command_on_a_host_without_a_mesh_names_the_one_that_starts_one(tmp_path: Path) -> None:
    """It is the first line of the help's first steps."""
    for command in ("whoami", "inbox", "up -d", "send me hello"):
        done = run(tmp_path, *command.split())
        assert (done.code, done.err.splitlines()[-1]) == (78, "try: claudemesh up -d --with-broker"), command


@pytest.mark.skipif(reason is not None, reason=str(reason))
def test_the_first_three_commands_of_the_help_end_with_a_message() -> None:
    """In an empty home, on a host whose port 7900 is free."""
    page = run(Path("/nonexistent"), "help").out
    steps = re.findall(
        r"^    (claudemesh [^\n]+)", page.partition("First steps")[2].partition("\n\n")[0], re.M
    )
    assert len(steps) == 3
    with tempfile.TemporaryDirectory(prefix="cm-") as folder, two_namespaces() as (host, _):
        inside = f'claudemesh() {{ {" ".join(host.prefix)} "{sys.executable}" -m claudemesh "$@"; }}\n'
        kept = {key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")}
        environment = {**kept, "CLAUDEMESH_HOME": f"{folder}/home", "PYTHONPATH": str(REPOSITORY)}

        def paste(step: str) -> str:
            done = subprocess.run(
                ["sh", "-c", inside + step],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=WAIT_S,
            )
            assert done.returncode == 0, (step, done.stderr)
            return done.stdout

        try:
            assert paste(steps[0]).startswith("started the daemon of mesh home")
            paste(steps[1])
            until(lambda: "\tme\tyou\t" in paste(steps[2]), "the message is shown")
        finally:
            paste("claudemesh down")
