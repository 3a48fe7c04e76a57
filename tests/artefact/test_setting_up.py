"""The scripts before a build: an environment of their own, and a folder in which a socket path fits."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.pyz import REPOSITORY, mesh_script


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a checkout as build/env reads."""
    (tmp_path / "build").mkdir()
    for name in ("env", "requirements-dev.txt"):
        shutil.copy(REPOSITORY / "build" / name, tmp_path / "build" / name)
    return tmp_path


def source(checkout: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    """Source build/env and print the Python that it sets."""
    return subprocess.run(
        ["bash", "-euc", 'source build/env; echo "$PYTHON"'],
        cwd=checkout,
        env={**os.environ, "PATH": f"{path}:{os.defpath}", "CLAUDEMESH_PYTHON": ""},
        capture_output=True,
        text=True,
    )


def executable(path: Path, text: str) -> None:
    """Write a script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_without_a_fitting_python_it_says_what_is_missing(checkout: Path) -> None:
    """One sentence, exit code 1, no half-made environment."""
    for minor in ("", ".14", ".13", ".12", ".11"):
        executable(checkout / "bin" / f"python3{minor}", "#!/bin/sh\nexit 1\n")
    done = source(checkout, str(checkout / "bin"))
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr
    assert "CLAUDEMESH_PYTHON" in done.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("install", ["yes", "no"])
def test_missing_packages_are_named_before_they_are_installed_and_no_install_is_respected(
    tmp_path: Path, install: str
) -> None:
    """Nothing is installed under --no-install; otherwise the list comes first, and no service is started."""
    tools = tmp_path / "bin"
    policy = tmp_path / "system" / "usr" / "sbin" / "policy-rc.d"
    policy.parent.mkdir(parents=True)
    executable(
        tools / "apt-get",
        f'#!/bin/sh\nexec >>{tmp_path}/calls\necho "$@"\n{policy}\necho "$?"\n',
    )
    executable(tools / "id", "#!/bin/sh\necho 0\n")
    for program in ("chmod", "mkdir", "rm"):
        (tools / program).symlink_to(shutil.which(program) or program)
    done = subprocess.run(
        [
            "/bin/bash",
            "-euc",
            f'say() {{ echo "$@" >&2; }}; source build/packages; ensure_packages {install}',
        ],
        cwd=REPOSITORY,
        env={"PATH": str(tools), "SYSTEM_ROOT": str(tmp_path / "system")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not policy.exists()
    for package in ("bubblewrap", "strace", "redis-server", "pgbouncer"):
        assert package in done.stderr
    calls = tmp_path / "calls"
    assert calls.exists() == (install == "yes")
    if install == "yes":
        assert "install -y -qq --no-install-recommends bubblewrap" in calls.read_text()
        assert calls.read_text().splitlines()[-1] == "101"


def test_an_environment_that_is_up_to_date_is_used_as_it_is(checkout: Path) -> None:
    """A second call costs nothing and says nothing."""
    python = checkout / ".venv" / "bin" / "python"
    executable(python, "#!/bin/sh\nexit 1\n")
    shutil.copy(checkout / "build" / "requirements-dev.txt", checkout / ".venv" / ".installed")
    done = source(checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{python}\n", "")


def test_changed_requirements_are_installed_anew(checkout: Path) -> None:
    """The old environment goes; one that could not be finished is not believed."""
    executable(checkout / ".venv" / "bin" / "python", "#!/bin/sh\nexit 1\n")
    (checkout / ".venv" / ".installed").write_text("others")
    (checkout / "build" / "requirements-dev.txt").write_text("not a requirement\n")
    done = source(checkout)
    assert done.returncode == 1
    assert "setting up .venv" in done.stderr
    assert not (checkout / ".venv" / ".installed").exists()


def test_mesh_of_a_deep_checkout_lives_in_a_short_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket's path has at most 107 bytes."""
    script = mesh_script()
    short = tempfile.mkdtemp(prefix="cm-", dir="/tmp")
    monkeypatch.setattr(tempfile, "tempdir", short)
    monkeypatch.setattr(script, "ROOT", tmp_path)
    assert len(f"{script.default_folder()}/alice/daemon/demo/sock") <= 103
    monkeypatch.setattr(script, "ROOT", Path("/" + "x" * 90))
    folder = script.default_folder()
    assert len(f"{folder}/alice/daemon/demo/sock") <= 103
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    with pytest.raises(script.Failed):
        script.default_folder()
    shutil.rmtree(short)


def test_the_local_mesh_stops_no_stranger(tmp_path: Path) -> None:
    """The pid in broker.json is only a number; the process has to be the broker of this mesh."""
    script = mesh_script()
    made = script.LocalMesh(tmp_path)
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            with pytest.raises(script.Failed, match="stop it where it was started"):
                made._stop_broker({"url": "ws://127.0.0.1:1", "pid": stranger.pid})
            assert stranger.poll() is None
        finally:
            stranger.kill()
