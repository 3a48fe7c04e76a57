"""Property lists of launchd, the service manager of macOS.

launchd knows no exit code that must not be followed by a start, no start notification and no watchdog. A
limit of open files in the list of a system service becomes that of the whole machine, so the programs raise
their own.
"""

from __future__ import annotations

import os
import plistlib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claudemesh.cli.service.units import Placement
from claudemesh.runtime.exits import TEMPORARY, ExitWith
from claudemesh.runtime.homes import user_home


def daemon_label(slug: str) -> str:
    """Return the label of a mesh's daemon."""
    return f"claudemesh.daemon.{slug}"


BROKER_LABEL = "claudemesh.broker"


def daemon_plist(place: Placement, slug: str) -> bytes:
    """Return the property list of a mesh's daemon."""
    arguments = ["daemon", "up", "--mesh", slug]
    log = place.folder / "daemon" / slug / "daemon.log"
    return _plist(place, daemon_label(slug), arguments, log, {"CLAUDEMESH_HOME": str(place.folder)})


def broker_plist(place: Placement) -> bytes:
    """Return the property list of a broker."""
    arguments = ["broker", "up", "--data-dir", str(place.folder)]
    return _plist(place, BROKER_LABEL, arguments, place.folder / "broker.log", {})


def _plist(
    place: Placement, label: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]
) -> bytes:
    made: dict[str, Any] = {
        "Label": label,
        "ProgramArguments": [*place.program, *arguments],
        "EnvironmentVariables": {**environment, "CLAUDEMESH_LOG_FILE": str(log)},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 60,
        "ProcessType": "Background",
        "Umask": 0o077,
        "ExitTimeOut": 30,
        "HardResourceLimits": {"Core": 0},
    }
    if place.user is not None:
        made["UserName"] = place.user
    return plistlib.dumps(made)


@dataclass(frozen=True, slots=True)
class Launchd:
    """The service manager of macOS: the system's, or that of this user. A file in its folder is enabled."""

    is_system: bool

    @property
    def units(self) -> Path:
        """The folder of property lists that an administrator, or this user, has added."""
        return Path("/Library/LaunchDaemons") if self.is_system else user_home() / "Library/LaunchAgents"

    def lingers(self) -> bool:
        """Whether services run without a session of their user."""
        return self.is_system

    def instances(self, template: str) -> list[str]:
        """Return no instance: each property list is one service."""
        return []

    def enable(self, unit: str) -> None:
        """Do nothing: the file is enabled from the next login, or the next start of the system."""

    def reload_units(self) -> None:
        """Do nothing: a file is read when its service is started."""

    def start(self, unit: str) -> None:
        """Start a service, or start it again when it runs."""
        self._call("bootout", f"{self._domain}/{unit}", may_fail=True)
        self._call("bootstrap", self._domain, str(self.units / f"{unit}.plist"))

    def disable(self, unit: str) -> None:
        """Stop a service. The removal of its file disables it."""
        self._call("bootout", f"{self._domain}/{unit}", may_fail=True)

    @property
    def _domain(self) -> str:
        return "system" if self.is_system else f"gui/{os.getuid()}"

    def _call(self, *arguments: str, may_fail: bool = False) -> None:
        done = subprocess.run(["launchctl", *arguments], capture_output=True, text=True, check=False)  # noqa: S607
        if done.returncode and not may_fail:
            words = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise ExitWith(
                TEMPORARY, "launchctl_failed", f"The command launchctl {arguments[0]} failed: {words}."
            )
