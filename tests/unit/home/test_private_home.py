"""Private homes: each has one user, and the next start removes those that are not in use."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from claudemesh.home.private_home import PrivateHome
from claudemesh.runtime.files import FileLock
from tests.support.processes import REPOSITORY
from tests.support.waiting import WAIT_S


@pytest.fixture(autouse=True)
def runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which private homes are made here."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


_MAKE_AND_DIE = """
import os, signal, sys
from claudemesh.home.private_home import PrivateHome
from claudemesh.runtime.failpoints import install
install(lambda name: name == sys.argv[1] and os.kill(os.getpid(), signal.SIGKILL))
PrivateHome.make()
"""


def abandon(home: PrivateHome) -> Path:
    """Leave a home as a process does that is killed: the lock is free, and the files stay."""
    home._lock.release()
    return home.path


def test_a_home_is_of_this_user_alone_and_is_removed() -> None:
    """0700, the folder above it too."""
    home = PrivateHome.make()
    for folder in (home.path, home.path.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (home.path / "daemon").mkdir()
    home.close()
    assert not home.path.exists()


def test_the_next_start_removes_the_home_of_a_killed_process() -> None:
    """A home in use stays."""
    dead, alive = abandon(PrivateHome.make()), PrivateHome.make()
    assert not dead.exists()
    other = PrivateHome.make()
    assert alive.path.exists()
    assert other.path != alive.path


def test_a_home_stays_while_a_daemon_runs_in_it() -> None:
    """Its launcher may end before it. The daemon takes the home over and removes it."""
    home = PrivateHome.make()
    root = home.path / "daemon/team"
    root.mkdir(parents=True)
    lock = FileLock(root / "lock")
    assert lock.acquire()
    assert PrivateHome.of(home.path) is None
    home.close()
    PrivateHome.make().close()
    assert root.exists()
    lock.release()
    taken = PrivateHome.of(home.path)
    assert taken is not None
    taken.close()
    assert not home.path.exists()


def test_a_home_is_removed_when_its_killed_daemon_has_ended() -> None:
    """The daemon keeps its lock for a moment after it answers no more."""
    home = PrivateHome.make()
    root = home.path / "daemon/team"
    root.mkdir(parents=True)
    lock = FileLock(root / "lock")
    assert lock.acquire()
    closing = threading.Thread(target=home.close, kwargs={"wait_s": 600})
    closing.start()
    closing.join(0.05)
    assert root.exists()
    lock.release()
    closing.join()
    assert not home.path.exists()


@pytest.mark.parametrize("name", ["private_home.after_mkdir", "private_home.after_lock"])
def test_a_home_that_was_begun_is_removed_by_the_next_start(name: str) -> None:
    """A kill at each step leaves nothing that stays."""
    done = subprocess.run([sys.executable, "-c", _MAKE_AND_DIE, name], cwd=REPOSITORY, timeout=WAIT_S)
    assert done.returncode == -signal.SIGKILL
    home = PrivateHome.make()
    assert [path for path in home.path.parent.iterdir() if path.is_dir()] == [home.path]


def test_a_folder_that_others_can_write_to_is_not_used(runtime_dir: Path) -> None:
    """Another place is taken."""
    base = runtime_dir / f"claudemesh-{os.geteuid()}"
    base.mkdir()
    base.chmod(0o777)
    home = PrivateHome.make()
    assert home.path.parent != base
    home.close()


def test_no_other_folder_is_taken_for_a_private_home(tmp_path: Path) -> None:
    """A home of a persistent member is never removed."""
    assert PrivateHome.of(tmp_path) is None
