"""`claudemesh sdk`: the file of a language, whole, and never over a file that the user has changed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

import claudemesh
from claudemesh.cli.main import main
from claudemesh.runtime.exits import OK, USAGE
from claudemesh.sdks import SDKS


@pytest.mark.parametrize("language", SDKS)
def test_the_file_of_each_language_comes_out_whole(
    language: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """On standard output, in a directory under its own name, and in JSON."""
    source = SDKS[language].source()
    assert (main(["sdk", language]), capsysbinary.readouterr().out) == (OK, source)
    assert main(["sdk", language, "--out", str(tmp_path)]) == OK
    assert (tmp_path / SDKS[language].copy).read_bytes() == source
    capsysbinary.readouterr()
    assert main(["sdk", language, "--json"]) == OK
    assert json.loads(capsysbinary.readouterr().out)["source"] == source.decode()


@pytest.mark.parametrize("language", SDKS)
def test_the_file_has_the_version_of_the_program(language: str) -> None:
    """An `Unsupported` names it beside the daemon's."""
    assert re.search(rf'VERSION\b.*= "{re.escape(claudemesh.__version__)}"', SDKS[language].source().decode())


def test_a_changed_file_is_replaced_with_force_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same content is no change, and something that is no file is left alone."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    copy = tmp_path / "mesh.py"
    write = ["sdk", "python", "--out", str(copy)]
    assert main(write) == OK
    assert (main(write), "unchanged" in capsys.readouterr().out) == (OK, True)
    copy.write_text("mine")
    assert (main(write), copy.read_text()) == (USAGE, "mine")
    assert "--force" in capsys.readouterr().err
    assert (main([*write, "--force"]), copy.read_bytes()) == (OK, SDKS["python"].source())
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(copy)
    copy.write_text("mine")
    for other in ("pipe", "link", "mesh.py/below"):
        assert main(["sdk", "python", "--out", str(tmp_path / other), "--force"]) == USAGE
    assert copy.read_text() == "mine"


def test_a_folder_that_does_not_exist_is_named_with_the_command_that_makes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 64: the same command succeeds behind that one, and not later by itself."""
    folder = tmp_path / "a folder"
    assert main(["sdk", "go", "--json", "--out", str(folder / "mesh.go")]) == USAGE
    told = json.loads(capsys.readouterr().out)
    assert (told["error"], told["next"]) == ("no_such_folder", f"mkdir -p '{folder}'")
