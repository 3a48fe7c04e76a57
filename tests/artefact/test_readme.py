"""The README's commands, as a new user copies them: empty homes, the pyz, nothing else."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY, until

_PYZ = REPOSITORY / "dist/claudemesh.pyz"
_COMMENT = re.compile(r"\s{2,}#.*$", re.MULTILINE)


def blocks(section: str, language: str) -> list[str]:
    """The code of one section, without the comments behind it."""
    text = (REPOSITORY / "README.md").read_text()
    found = re.search(rf"^## {section}$(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert found is not None, section
    return [_COMMENT.sub("", code) for code in re.findall(rf"```{language}\n(.*?)```", found[1], re.DOTALL)]


class Host:
    """One host of the README: a home of its own, a shell, and the port of this test's broker."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CLAUDEMESH_")},
            "HOME": str(home),
            "CLAUDEMESH_BROKER_LISTEN": f"127.0.0.1:{port}",
            "CLAUDEMESH_CACHE": str(home.parent / "cache"),
        }
        self._environment.pop("PYTHONPATH", None)

    def run(self, script: str) -> str:
        """Run commands in bash; any that fails fails the test."""
        program = f'set -eu\nclaudemesh() {{ "{sys.executable}" "{_PYZ}" "$@"; }}\n{script}'
        done = subprocess.run(
            ["bash", "-c", program], env=self._environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, (script, done.stdout, done.stderr)
        return done.stdout

    def python(self, program: str) -> str:
        """Run a program with the SDK's file beside it."""
        shutil.copy(REPOSITORY / "claudemesh/sdk.py", self.home / "sdk.py")
        program = program.replace("from claudemesh import", "from sdk import")
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self.home,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (program, done.stderr)
        return done.stdout


@pytest.fixture
def hosts() -> Generator[tuple[Host, Host]]:
    """Two hosts that have never seen claudemesh; what they start is ended."""
    root = Path(tempfile.mkdtemp(prefix="cm-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = []
    for name in ("one", "two"):
        (root / name).mkdir(mode=0o700)
        made.append(Host(root / name, port))
    try:
        yield made[0], made[1]
    finally:
        for host in made:
            host.run("claudemesh down || true")
        broker = root / "broker.pid"
        if broker.exists():
            os.kill(int(broker.read_text()), signal.SIGTERM)
        shutil.rmtree(root, ignore_errors=True)


def test_the_first_ten_minutes(hosts: tuple[Host, Host]) -> None:
    """Every command of `Use it` and `From a program`, in their order."""
    one, two = hosts
    port = one._environment["CLAUDEMESH_BROKER_LISTEN"].rpartition(":")[2]
    first, second, third = blocks("Use it", "sh")
    first = re.sub(r"^alias .*$", "", first, flags=re.MULTILINE)
    # The one difference: a port of this test's own, and waiting as a person does for the broker's first line.
    first = first.replace(
        "claudemesh broker up &",
        f'"{sys.executable}" "{_PYZ}" broker up > "$HOME/log" 2>&1 &\necho $! > "$HOME/../broker.pid"\n'
        'until grep -q "broker at" "$HOME/log"; do read -rt 0.1 <> <(:) || :; done',
    ).replace("mesh create team", f"mesh create team --broker ws://127.0.0.1:{port}")
    link = re.search(r"claudemesh://join/\S+", one.run(first))
    assert link is not None
    two.run(second.replace("claudemesh://join/…", link[0]))

    def arrived() -> str:
        shown = one.run(third)
        return shown if "hello everybody" in shown else ""

    shown = until(arrived, "what was sent is shown")
    assert "the build is green" in shown
    assert "a longer text" in shown
    (request,) = blocks("From a program", "sh")
    assert '"client_message_id":"deploy-42"' in one.run(request)
    (program,) = blocks("From a program", "python")
    # The example listens for ever; the test ends it after the first message.
    program += "    break\n"
    assert one.python(program) == ""
    # The first hook, as docs/hooks.md has it; in CI hooks are off unless the user says otherwise.
    hook = re.search(r"```sh\n(.*?)```", (REPOSITORY / "docs/hooks.md").read_text(), re.DOTALL)
    assert hook is not None
    one.run("printf '[hooks]\\nenabled = true\\n' >>~/.claudemesh/daemon/team/config.toml\n" + hook[1])
    assert two.run("claudemesh request alice 'are you there?' --timeout 30s") == "got it\n"


def test_the_commands_of_the_first_page_exist() -> None:
    """Each script that the README names is there and may be run."""
    for block in blocks("Try it", "sh"):
        for line in block.splitlines():
            script = REPOSITORY / line.split()[0]
            assert os.access(script, os.X_OK), script
