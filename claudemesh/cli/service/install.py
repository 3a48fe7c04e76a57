"""Installation of services: writes a unit or property list, enables it, and removes both.

Each step can be repeated. A file is replaced atomically, so a kill leaves the old or the new one; the same
command then finishes the work.
"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from claudemesh.cli.background import program
from claudemesh.cli.service.launchd import Launchd
from claudemesh.cli.service.systemd import Systemd, no_manager
from claudemesh.cli.service.units import Placement
from claudemesh.home.environment import detect_environment
from claudemesh.runtime.exits import CANNOT_CREATE, CONFIGURATION, PERMISSION, ExitWith
from claudemesh.runtime.failpoints import failpoint
from claudemesh.runtime.files import sync_dir, write_atomic
from claudemesh.runtime.oserrors import cannot

# The user of a service of the system whose folder is not there yet.
SERVICE_USER = "claudemesh"
_PUBLIC = 0o644


@dataclass(frozen=True, slots=True)
class Wish:
    """The options of `install-service`."""

    # None: the system's manager for root, else the manager of this user.
    is_system: bool | None = None
    only_print: bool = False
    now: bool = False
    in_ci: bool = False

    @property
    def for_system(self) -> bool:
        """Whether the service is one of the system."""
        return os.geteuid() == 0 if self.is_system is None else self.is_system


@dataclass(slots=True)
class Outcome:
    """The result of an installation, as it is printed."""

    unit: str
    file: Path
    started: bool
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the fields of --json."""
        state = {"enabled": True, "started": self.started, "notes": self.notes}
        return {"status": "installed", "unit": self.unit, "file": str(self.file), **state}


def is_macos() -> bool:
    """Whether the services of this host are launchd's."""
    return sys.platform == "darwin"


def check_wish(wish: Wish) -> None:
    """Refuse what cannot last or is not allowed. `ExitWith` names the option or the command that helps."""
    if detect_environment(os.environ) == "ci" and not wish.in_ci:
        raise ExitWith(
            CONFIGURATION,
            "persistent_in_ci",
            "A CI job ends and its host may be used by other jobs, so that no service is installed in it. "
            "Give --allow-ci-persistent if this host is yours.",
        )
    if wish.for_system and os.geteuid() != 0:
        raise ExitWith(
            PERMISSION, "not_root", "Only root can install a service of the system. Use sudo, or give --user."
        )
    if sys.platform not in ("linux", "darwin"):
        raise no_manager(f"{sys.platform} has no service manager that is known here")


def placement(folder: Path, wish: Wish, user: str | None = None, *, low_port: bool = False) -> Placement:
    """Return the place of a service that writes to `folder`. A service of the system runs as the owner of the
    folder unless a user is named."""
    if not wish.for_system:
        return Placement(program(), folder, None, user_namespaces=_has_user_namespaces())
    made = Placement(program(), folder, user or _owner(folder), low_port)
    if not wish.only_print:
        _check_program(made)
    return made


def install(text: str, file: str, unit: str, wish: Wish) -> Outcome:
    """Write a unit, enable it, and start it when that is wished.

    A file of that name with another folder is refused: it is the unit of another home's services.
    """
    manager = _manager(wish)
    path = manager.units / file
    _check_same_folder(path, text)
    _write(path, text.encode())
    failpoint("service.after_unit")
    manager.enable(unit)
    failpoint("service.after_enable")
    if wish.now:
        manager.start(unit)
    outcome = Outcome(unit, path, wish.now)
    if isinstance(manager, Systemd) and not manager.lingers():
        outcome.notes.append(
            "It ends when you log out of this host. `loginctl enable-linger` keeps it, also after a reboot."
        )
    return outcome


def unit_path(file: str, wish: Wish) -> Path:
    """Return the path of a unit's file."""
    return _manager(wish).units / file


def uninstall(file: str, unit: str, wish: Wish) -> bool:
    """Stop and disable a unit, and remove its file unless another instance needs it. False: there is none."""
    manager = _manager(wish)
    path = manager.units / file
    if not path.exists():
        return False
    manager.disable(unit)
    failpoint("service.after_disable")
    if not manager.instances(file):
        path.unlink(missing_ok=True)
        sync_dir(path.parent)
        failpoint("service.after_remove")
        manager.reload_units()
    return True


def _manager(wish: Wish) -> Systemd | Launchd:
    return Launchd(wish.for_system) if is_macos() else Systemd(wish.for_system, os.environ)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data, _PUBLIC)
    except OSError as error:
        raise cannot("write", error, path) from error


def _check_same_folder(path: Path, text: str) -> None:
    try:
        found = path.read_text(errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise cannot("read", error, path) from error
    if _folder_of(found) != _folder_of(text):
        raise ExitWith(
            CANNOT_CREATE,
            "service_exists",
            f"{path} is a service with another folder ({_folder_of(found)}). Uninstall that one first, or "
            "use the service manager of another user.",
        )


def _folder_of(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("ReadWritePaths=")]
    return lines[0].partition("=")[2] if lines else "unknown"


def _has_user_namespaces() -> bool:
    """Whether this user may make a user namespace: some distributions forbid it."""
    try:
        return subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode == 0  # noqa: S607
    except OSError:
        return False


def _owner(folder: Path) -> str:
    """Return the user that owns a folder; for one that is not there yet, the user that the pages suggest."""
    try:
        number = folder.stat().st_uid
    except FileNotFoundError:
        return SERVICE_USER
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _number(user: str) -> int:
    if user.isascii() and user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ExitWith(
            CONFIGURATION, "no_such_user", f"The user {user} does not exist.", next=f"useradd --system {user}"
        ) from None


def _check_program(place: Placement) -> None:
    """Refuse a program that the service's user cannot read, such as a file in another user's home."""
    assert place.user is not None
    uid = _number(place.user)
    if uid == 0:
        return
    for word in place.program:
        path = Path(word)
        if not path.is_absolute():
            continue
        for part in (path.resolve(), *path.resolve().parents):
            found = part.stat()
            wanted = stat.S_IXOTH if stat.S_ISDIR(found.st_mode) else stat.S_IROTH
            if found.st_uid != uid and not found.st_mode & wanted:
                raise ExitWith(
                    PERMISSION,
                    "program_unreadable",
                    f"The user {place.user} cannot run {path}: {part} is closed to other users. Copy the "
                    "program to /usr/local/bin, mode 0755, and run it from there.",
                )
