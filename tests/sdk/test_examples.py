"""The bots of docs/examples in Python and Go; test_typescript.py has the one in TypeScript."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from claudemesh.sdks import SDKS
from tests.sdk.bots import EXAMPLES, check_bot, python_program
from tests.sdk.languages import build_and_vet, misformatted
from tests.support.processes import Mesh, mesh


@pytest.fixture(scope="module")
def team() -> Generator[Mesh]:
    with mesh("alice", "bob") as made:
        yield made


def test_the_bot_in_python_does_everything_once(team: Mesh, tmp_path: Path) -> None:
    check_bot(team, python_program("deploy_bot.py", tmp_path), tmp_path, "v1-python")


def test_the_bot_in_go_does_everything_once(team: Mesh, tmp_path: Path) -> None:
    """It is vetted, and written as `gofmt` writes it."""
    package = tmp_path / "claudemesh"
    package.mkdir()
    (package / "claudemesh.go").write_bytes(SDKS["go"].source())
    (tmp_path / "go.mod").write_text("module deploybot\n\ngo 1.22\n")
    shutil.copy(EXAMPLES / "deploy-bot.go", tmp_path)
    build_and_vet(tmp_path, "bot")
    assert misformatted(tmp_path / "deploy-bot.go") == ""
    check_bot(team, [tmp_path / "bot"], tmp_path, "v1-go")
