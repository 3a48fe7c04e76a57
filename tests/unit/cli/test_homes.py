"""Commands of a user without a home directory, such as a number without a name in a container."""

from __future__ import annotations

import json
import pwd
from pathlib import Path

import pytest

from claudemesh.cli.main import main
from claudemesh.runtime.exits import CONFIGURATION, UNAVAILABLE

_NOWHERE = "~no-such-user/mesh"


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that no list of users has."""

    def is_unknown(number: int) -> pwd.struct_passwd:
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", is_unknown)


@pytest.mark.parametrize(
    "command", ["status", "inbox", "doctor", "mesh list", "daemon up", "broker up", "broker status"]
)
def test_a_command_says_which_variable_to_set(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 78, also where CLAUDEMESH_HOME names the home of a user that is not there."""
    monkeypatch.setenv("CLAUDEMESH_HOME", _NOWHERE)
    monkeypatch.setenv("CLAUDEMESH_BROKER_DATA_DIR", _NOWHERE)
    assert main([*command.split(), "--json"]) == CONFIGURATION
    told = json.loads(capsys.readouterr().out)
    assert told["error"] == "no_home" and "CLAUDEMESH_HOME" in told["message"]


@pytest.mark.usefixtures("no_home")
def test_a_home_of_claudemesh_is_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients are configured in the home of the user, and without one there is none to check."""
    assert main(["status", "--json"]) == CONFIGURATION
    assert json.loads(capsys.readouterr().out)["error"] == "no_home"
    monkeypatch.setenv("CLAUDEMESH_HOME", str(tmp_path))
    assert main(["integrate", "cursor", "--json"]) == CONFIGURATION
    assert json.loads(capsys.readouterr().out)["error"] == "no_home"
    assert main(["doctor", "--json"]) == UNAVAILABLE
    assert [item["code"] for item in json.loads(capsys.readouterr().out)["items"]] == ["no_mesh"]
