"""A systemd of its own: the manager of a user, in namespaces that hide this host from it.

It is the real program, started as an ordinary user. The manager of a system is never started: it would run
the units of this host, which clear /tmp and set kernel parameters, and change the control groups of all.
The disk is read-only inside, the units of this host are hidden, and /srv, /run and the folders for temporary
files are empty file systems.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.pid_namespaces import enter
from tests.support.processes import until
from tests.support.waiting import WAIT_S

_PROGRAM = "/lib/systemd/systemd"
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "--ipc")
_HIERARCHIES = ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")
# An ordinary user that every host has.
USER = 65_534
# Folders that are empty inside: those that a service writes to, and those with units of this host.
_EMPTY = ("/run", "/srv", "/tmp", "/var/tmp", "/var/cache", "/etc/systemd", "/lib/systemd/user")
_TARGETS = ("basic", "default", "shutdown", "exit", "sockets", "timers", "paths")

_INSIDE = f"""
set -eu
mount --make-rprivate /
for folder in {" ".join(_EMPTY)}; do mount -t tmpfs -o mode=755 tmpfs $folder; done
chmod 1777 /tmp /var/tmp
mount -o remount,bind,ro /
for target in {" ".join(_TARGETS)}; do
  printf '[Unit]\\nDefaultDependencies=no\\n' >/lib/systemd/user/$target.target
done
mkdir -p /run/systemd/system /run/systemd/unit-root /run/user/{USER} /var/cache/user
mkdir /srv/home /srv/mesh /srv/data /srv/else
chown {USER}:{USER} /run/user/{USER} /srv/home /srv/mesh /srv/data /srv/else /var/cache/user
chmod 700 /run/user/{USER} /srv/mesh /srv/data
mkdir /var/cache/root
for hierarchy in {" ".join(_HIERARCHIES)}; do
  if [ -e $hierarchy/cgroup.procs ]; then
    mkdir $hierarchy/$GROUP
    chown -R {USER}:{USER} $hierarchy/$GROUP
    echo $$ >$hierarchy/$GROUP/cgroup.procs
  fi
done
export HOME=/srv/home XDG_RUNTIME_DIR=/run/user/{USER}
setpriv --reuid {USER} --regid {USER} --clear-groups \\
  {_PROGRAM} --user --unit=basic.target --log-target=console &
wait
"""


class Systemd:
    """A running manager, and commands beside it."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def run(self, *command: str, user: int = USER, code: int | None = 0) -> str:
        """Run a command as a user, the manager's by default; it must end with the code, unless None."""
        environment = {
            "PATH": f"{os.defpath}:/usr/sbin:/sbin",
            "HOME": "/srv/home",
            "CLAUDEMESH_HOME": "/srv/mesh",
            "CLAUDEMESH_CACHE": f"/var/cache/{'user' if user == USER else 'root'}",
            "XDG_RUNTIME_DIR": f"/run/user/{USER}",
        }
        done = subprocess.run(
            [
                *enter(self.pid),
                "setpriv",
                f"--reuid={user}",
                f"--regid={user}",
                "--clear-groups",
                *command,
            ],
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=WAIT_S * 3,
        )
        if code is not None:
            assert done.returncode == code, (command, done.stdout, done.stderr, self.log[-3000:])
        return done.stdout + done.stderr

    def write(self, path: str, text: str, mode: str = "0600", user: int = USER) -> None:
        """Write a file, and make its folder."""
        script = f'mkdir -p "${{1%/*}}"; printf %s "$2" >"$1"; chmod {mode} "$1"'
        self.run("sh", "-c", script, "-", path, text, user=user)

    def put(self, source: Path, path: str) -> None:
        """Copy a program to the manager's disk. Its own /tmp may hide the folder that the program is in."""
        script = 'cat >"$1" && chmod 755 "$1"'
        with source.open("rb") as file:
            subprocess.run([*enter(self.pid), "sh", "-c", script, "-", path], stdin=file, check=True)

    def systemctl(self, *arguments: str, code: int | None = 0) -> str:
        """Run systemctl for this manager."""
        return self.run("systemctl", "--user", *arguments, code=code)

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.systemctl("show", "--value", "-p", name, unit).strip()


@contextmanager
def systemd() -> Generator[Systemd]:
    """Start the manager of a user. The test is skipped where that is impossible."""
    if os.geteuid() != 0 or not Path(_PROGRAM).exists() or shutil.which("setpriv") is None:
        pytest.skip("a systemd of its own needs root, and the Debian package systemd")
    group = f"claudemesh-test-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="cm-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*_NAMESPACES, "bash", "-c", _INSIDE],
                env={"PATH": f"{os.defpath}:/usr/sbin:/sbin", "GROUP": group},
                stdout=output,
                stderr=output,
            )
        try:
            made = Systemd(_first(process, log), log)
            until(lambda: _state(made) in ("running", "degraded"), f"systemd runs: {log.read_text()}")
            yield made
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            for hierarchy in _HIERARCHIES:
                _remove_group(Path(hierarchy) / group)


def _first(process: subprocess.Popen[bytes], log: Path) -> int:
    """Return the first process of the namespace, by its number here."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def found() -> Sequence[str]:
        assert process.poll() is None, log.read_text()
        return path.read_text().split()

    return int(until(found, "the namespace is there")[0])


def _state(made: Systemd) -> str:
    return made.systemctl("is-system-running", code=None).split("\n")[0]


def _remove_group(top: Path) -> None:
    """Remove a control group and those below it, when the last of their processes is gone."""

    def is_gone() -> bool:
        for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
            with suppress(OSError):
                folder.rmdir()
        with suppress(OSError):
            top.rmdir()
        return not top.exists()

    until(is_gone, f"{top} is removed")
