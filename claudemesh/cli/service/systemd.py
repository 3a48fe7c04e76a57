"""Calls of systemctl, and the folders in which its managers look for units."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from claudemesh.runtime.exits import CONFIGURATION, TEMPORARY, UNAVAILABLE, ExitWith
from claudemesh.runtime.homes import user_home

_SYSTEM_UNITS = Path("/etc/systemd/system")
_CALL_S = 120.0


@dataclass(frozen=True, slots=True)
class Systemd:
    """A manager of systemd: the system's, or that of this user."""

    is_system: bool
    environ: Mapping[str, str]

    @property
    def units(self) -> Path:
        """The folder of the units that an administrator, or this user, has added."""
        if self.is_system:
            return _SYSTEM_UNITS
        chosen = self.environ.get("XDG_CONFIG_HOME")
        return (Path(chosen) if chosen else user_home() / ".config") / "systemd/user"

    @property
    def option(self) -> str:
        """The option of systemctl and journalctl for this manager, with the space behind it."""
        return "" if self.is_system else "--user "

    def is_running(self) -> bool:
        """Whether the manager runs. Units may be enabled before it does."""
        if not Path("/run/systemd/system").is_dir():
            return False
        folder = self._runtime_dir()
        return self.is_system or (folder is not None and (folder / "systemd/private").exists())

    def lingers(self) -> bool:
        """Whether the manager runs without a session of its user."""
        # Imported here: only an installation asks for it.
        import pwd

        return self.is_system or Path("/var/lib/systemd/linger", pwd.getpwuid(os.getuid()).pw_name).exists()

    def instances(self, template: str) -> list[str]:
        """Return the enabled instances of a template, by the links that enabling makes."""
        prefix, _, suffix = template.partition("@")
        if not suffix:
            return []
        links = self.units.glob(f"*.wants/{prefix}@*{suffix}")
        return sorted({link.name.removeprefix(f"{prefix}@").removesuffix(suffix) for link in links})

    def enable(self, unit: str) -> None:
        """Read the units again, and let a unit start with the manager."""
        if self.is_running():
            self.call("daemon-reload")
        self.call("enable", unit)

    def disable(self, unit: str) -> None:
        """Stop a unit, and let it start no more."""
        if self.is_running():
            self.call("disable", "--now", unit)
        else:
            self.call("disable", unit)

    def reload_units(self) -> None:
        """Read the units again."""
        if self.is_running():
            self.call("daemon-reload")

    def start(self, unit: str) -> None:
        """Start a unit, or start it again when it runs. `ExitWith` when its start failed."""
        if not self.is_running():
            raise ExitWith(
                UNAVAILABLE,
                "service_manager_not_running",
                f"The unit {unit} is installed and enabled. It was not started, because {self._name} does "
                "not run here.",
            )
        self.call("reset-failed", unit, may_fail=True)
        self.call("restart", unit, next=f"journalctl {self.option}-n 20 -u {unit}")

    def call(self, *arguments: str, may_fail: bool = False, next: str | None = None) -> None:
        """Run systemctl. `ExitWith` with its own words when it fails."""
        program = shutil.which("systemctl")
        if program is None:
            raise no_manager("systemctl is not installed")
        command = [program, *([] if self.is_system else ["--user"]), "--no-ask-password", *arguments]
        done = _run(command, self._environment())
        if done.returncode and not may_fail:
            words = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
            raise ExitWith(
                TEMPORARY,
                "systemctl_failed",
                f"The command systemctl {arguments[0]} failed: {words.rstrip('.')}.",
                next=next,
            )

    def _environment(self) -> dict[str, str]:
        made = {**self.environ}
        folder = self._runtime_dir()
        if folder is not None:
            made["XDG_RUNTIME_DIR"] = str(folder)
        if not self.is_running():
            # Then systemctl only makes and removes links.
            made["SYSTEMD_OFFLINE"] = "1"
        return made

    def _runtime_dir(self) -> Path | None:
        # `su` and `sudo` do not set the variable.
        chosen = self.environ.get("XDG_RUNTIME_DIR")
        folder = Path(chosen) if chosen else Path(f"/run/user/{os.getuid()}")
        return folder if folder.is_dir() else None

    @property
    def _name(self) -> str:
        return "systemd" if self.is_system else "the systemd manager of this user"


def unit_of(pid: int) -> tuple[Systemd, str] | None:
    """Return the unit of claudemesh in which a process runs, with its manager; None outside of one."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return None
    for line in groups.splitlines():
        path = line.partition("::")[2] or line.rpartition(":")[2]
        name = path.rpartition("/")[2]
        if name.startswith("claudemesh@") and name.endswith(".service"):
            return Systemd("/user@" not in path and "/app.slice/" not in path, os.environ), name
    return None


def no_manager(reason: str) -> ExitWith:
    """Return the ending for a host without a service manager that is known here."""
    return ExitWith(
        CONFIGURATION,
        "no_service_manager",
        f"No service was installed: {reason}. Let your service manager run `claudemesh daemon up` or "
        "`claudemesh broker up` in the foreground. --print shows a unit of systemd as an example.",
    )


def _run(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExitWith(
            TEMPORARY,
            "systemctl_failed",
            f"The command systemctl did not end within {_CALL_S:g} s. Try again.",
        ) from error
