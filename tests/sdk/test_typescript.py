"""The SDK of TypeScript: strict, and in step with the JavaScript that is made from it."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
from pathlib import Path

import pytest

from claudemesh.sdks import SDKS
from tests.sdk.bots import EXAMPLES, check_bot
from tests.sdk.languages import node
from tests.support.processes import REPOSITORY, mesh

_PROJECT = Path(__file__).parent / "typescript"
# Where the pinned compiler is kept between runs; not a part of the repository.
_KEPT = REPOSITORY / ".typescript"


@pytest.fixture(scope="module")
def compiler() -> Path:
    """The compiler of the lock file, installed once."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed (Debian: apt-get install npm)")
    lock, kept = _PROJECT / "package-lock.json", _KEPT / "package-lock.json"
    program = _KEPT / "node_modules" / ".bin" / "tsc"
    if not (program.exists() and kept.exists() and filecmp.cmp(lock, kept, shallow=False)):
        shutil.rmtree(_KEPT, ignore_errors=True)
        _KEPT.mkdir()
        shutil.copy(_PROJECT / "package.json", _KEPT)
        shutil.copy(lock, _KEPT)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=_KEPT, capture_output=True, text=True)
        if done.returncode != 0:
            shutil.rmtree(_KEPT)
            pytest.skip(f"npm cannot install the compiler: {done.stderr[-300:]}")
    return program


def test_the_sdk_is_strict_and_its_javascript_is_made_from_it(compiler: Path, tmp_path: Path) -> None:
    """To renew the JavaScript, take the file that the failure names. The bot of docs/examples runs."""
    for source in (_PROJECT / "tsconfig.json", _PROJECT / "package.json"):
        shutil.copy(source, tmp_path)
    (tmp_path / "node_modules").symlink_to(_KEPT / "node_modules")
    (tmp_path / "claudemesh.ts").write_bytes(SDKS["typescript"].source())
    shutil.copy(EXAMPLES / "deploy-bot.ts", tmp_path)
    done = subprocess.run([compiler, "-p", "."], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    made = tmp_path / "out" / "claudemesh.js"
    if made.read_bytes() != SDKS["javascript"].source():
        pytest.fail(f"claudemesh/sdks/typescript/claudemesh.js is not made from claudemesh.ts; {made} is.")
    with mesh("alice", "bob") as team:
        check_bot(team, node(tmp_path / "out" / "deploy-bot.js"), tmp_path, "v1-typescript")
