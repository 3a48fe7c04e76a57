"""The package as pip installs it: a program on the PATH, and extras for what not every host needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import claudemesh
from distributions import packages
from tests.support.processes import free_port
from tests.support.pyz import REPOSITORY
from tests.support.waiting import WAIT_S

CONFIGURATION = 78
_PINS = REPOSITORY / "build" / "requirements.txt"
_OPTIONAL = {"asyncpg": "postgres", "redis": "redis"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and the pinned libraries, but none of an extra."""
    folder = tmp_path_factory.mktemp("installed")
    names = packages(REPOSITORY, folder, 1_767_225_600)
    [wheel] = [name for name in names if name.endswith(".whl")]
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    pip = [str(python), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, str(folder / wheel), "--constraint", constraints(folder)], check=True)
    return folder / "venv"


def constraints(folder: Path) -> str:
    """The pinned versions without their hashes, which pip does not take as constraints of a wheel."""
    pins = [line.split()[0] for line in _PINS.read_text().splitlines() if "==" in line.split("#")[0]]
    path = folder / "constraints.txt"
    path.write_text("\n".join(pins) + "\n")
    return str(path)


def run(installed: Path, *arguments: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the program of the environment, away from the checkout."""
    environment = {"PATH": os.defpath, "HOME": str(home), "CLAUDEMESH_HOME": str(home / "claudemesh"), **more}
    return subprocess.run(
        [str(installed / "bin" / arguments[0]), *arguments[1:]],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )


@pytest.mark.slow
def test_an_installed_package_sends_a_message(installed: Path, tmp_path: Path) -> None:
    """By the program, and by `python -m claudemesh`, which are the same."""
    listen = f"127.0.0.1:{free_port()}"
    started = run(
        installed, "claudemesh", "up", "-d", "--with-broker", home=tmp_path, CLAUDEMESH_BROKER_LISTEN=listen
    )
    try:
        assert started.returncode == 0, started.stderr
        sent = run(
            installed,
            *("python", "-m", "claudemesh", "send", "#all", "hello", "--wait", "30000", "--json"),
            home=tmp_path,
        )
        assert (sent.returncode, json.loads(sent.stdout)["status"]) == (0, "done"), sent.stderr
    finally:
        run(installed, "claudemesh", "down", home=tmp_path)
    told = json.loads(run(installed, "claudemesh", "version", "--json", home=tmp_path).stdout)
    assert (told["version"], told["installed"]) == (claudemesh.__version__, "package")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "url", "extra"),
    [
        ("--database-url", "postgresql://u@localhost/db", "postgres"),
        ("--redis-url", "redis://localhost", "redis"),
    ],
)
def test_a_setting_that_needs_an_extra_names_it(
    installed: Path, option: str, url: str, extra: str, tmp_path: Path
) -> None:
    listen = f"127.0.0.1:{free_port()}"
    done = run(
        installed, "claudemesh", "broker", "up", "--listen", listen, option, url, "--json", home=tmp_path
    )
    refusal = json.loads(done.stdout)
    assert (done.returncode, refusal["error"]) == (CONFIGURATION, "missing_extra"), done.stderr
    assert refusal["next"] == f"pip install 'claudemesh[{extra}]'"


def test_this_environment_has_the_extras() -> None:
    """The refusal is not for a host that has the library."""
    for library in _OPTIONAL:
        assert subprocess.run([sys.executable, "-c", f"import {library}"]).returncode == 0
