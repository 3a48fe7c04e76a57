"""Imports point down, and the contracts in .importlinter can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_LINT = "from importlinter.cli import lint_imports_command as run; run()"


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts over a tree."""
    return subprocess.run(
        [sys.executable, "-c", _LINT, "--no-cache", "--no-logo"], cwd=tree, capture_output=True, text=True
    )


def test_every_import_contract_is_kept() -> None:
    """cli > daemon | broker | client > home > runtime > protocol, without cycles."""
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("runtime/clock.py", "import claudemesh.daemon.bus", "Imports point down only"),
        ("client/meshes.py", "import claudemesh.broker.connections.hub", "Imports point down only"),
        ("home/paths.py", "import claudemesh.client.meshes", "Imports point down only"),
        ("home/keyring.py", "import asyncio", "The home reads and writes files"),
        ("protocol/ids.py", "import time", "The protocol has no I/O"),
        ("broker/messages/accept.py", "import asyncpg", "Only the Postgres store knows asyncpg"),
        ("daemon/bus.py", "import aiosqlite", "Only runtime.sqlite knows aiosqlite"),
        ("daemon/outbox/states.py", "import claudemesh.daemon.outbox.drain", "No two siblings"),
        (
            "daemon/api/send.py",
            "import claudemesh.daemon.link.link",
            "The API, the link and the hooks meet only",
        ),
        ("cli/daemon/up.py", "import claudemesh.broker.app", "Only the commands of the broker, and"),
        ("cli/broker/up.py", "import claudemesh.daemon.app", "The commands of the broker know no daemon"),
    ],
)
def test_a_wrong_import_breaks_its_contract(tmp_path: Path, module: str, line: str, contract: str) -> None:
    """Each contract names what it forbids."""
    shutil.copytree(
        ROOT / "claudemesh", tmp_path / "claudemesh", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / ".importlinter", tmp_path)
    with (tmp_path / "claudemesh" / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint(tmp_path)
    broken = [row for row in done.stdout.splitlines() if " BROKEN" in row]
    assert done.returncode == 1
    assert any(row.startswith(contract) for row in broken), done.stdout
