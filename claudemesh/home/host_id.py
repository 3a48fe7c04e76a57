"""Host id: detects that the files of a member were copied to another host (docs/spec/lifecycle.md, Clones).

It is for accidents, such as a copied image or home, and not for attackers. Neither the host name nor the
boot id is a part of it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

_MACHINE_ID_FILES: Final = ("etc/machine-id", "var/lib/dbus/machine-id")
_VIRTUAL: Final = re.compile(r"^(lo|docker|br-?|bridge|veth|virbr|tun|tap|wg|tailscale|ppp)")
_WIRED: Final = ("en", "eth")
# `addr_assign_type` of an address that the hardware has; others were drawn or set.
_PERMANENT: Final = "0"
_NO_MAC: Final = "00:00:00:00:00:00"
_PLATFORM_UUID: Final = re.compile(r'"IOPlatformUUID" = "([0-9A-Fa-f-]{36})"')
_ETHER: Final = re.compile(r"^\s*ether ([0-9a-f:]{17})", re.MULTILINE)
_COMMAND_S: Final = 5.0

# Sources of a fingerprint.
HOST, OVERRIDE, RANDOM = "host", "override", "random"


@dataclass(frozen=True, slots=True)
class HostId:
    """A host as the files of a member remember it: a SHA-256 in hex, and where it comes from."""

    fingerprint: str
    source: str


class Verdict(Enum):
    """The comparison of the kept host id with that of this host."""

    SAME = "same"
    OTHER = "other"
    # There is no kept id that could be compared: that of this host is kept from now on.
    KEEP = "keep"
    # This host has no id that could be compared.
    UNAVAILABLE = "unavailable"


def compare(kept: HostId | None, here: HostId | None) -> Verdict:
    """Compare the kept host id with that of this host. None: there is none."""
    if here is None:
        return Verdict.KEEP if kept is None else Verdict.UNAVAILABLE
    if kept is None or kept.source == RANDOM:
        return Verdict.KEEP
    return Verdict.SAME if kept == here else Verdict.OTHER


def read_host_id(override: str | None = None, root: Path = Path("/")) -> HostId | None:
    """Return the id of this host, None when the system tells none. `override` takes the place of all else."""
    if override is not None:
        return HostId(_hash(override), OVERRIDE)
    machine, mac = _macos() if sys.platform == "darwin" else _linux(root)
    return HostId(_hash(f"{machine or mac}{mac}"), HOST) if machine or mac else None


def random_host_id() -> HostId:
    """Return an id for a host that tells none."""
    return HostId(secrets.token_hex(32), RANDOM)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _linux(root: Path) -> tuple[str, str]:
    machine = next(filter(None, (_read(root / name) for name in _MACHINE_ID_FILES)), "")
    # The address of a radio may change while the system scans: it counts only where nothing else does.
    return machine, _first_mac(root / "sys/class/net", wired_only=bool(machine))


def _first_mac(net: Path, *, wired_only: bool) -> str:
    """Return the MAC address of the first real interface that stays in this host."""
    try:
        names = [entry.name for entry in net.iterdir() if not _VIRTUAL.match(entry.name)]
    except OSError:
        return ""
    for name in sorted(names, key=lambda name: (not name.startswith(_WIRED), name)):
        mac = _read(net / name / "address")
        if mac in ("", _NO_MAC) or (wired_only and not name.startswith(_WIRED)):
            continue
        if _read(net / name / "addr_assign_type") == _PERMANENT and not _is_removable(net / name / "device"):
            return mac
    return ""


def _is_removable(device: Path) -> bool:
    with suppress(OSError):
        return "/usb" in str(device.resolve())
    return False


def _read(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return ""


def _macos() -> tuple[str, str]:
    """Return the UUID of the machine and the address of en0, as two programs of the system print them."""
    platform = _PLATFORM_UUID.search(_printed(["/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice"]))
    ether = _ETHER.search(_printed(["/sbin/ifconfig", "en0"]))
    return platform[1] if platform else "", ether[1] if ether else ""


def _printed(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - constant commands
            command, capture_output=True, timeout=_COMMAND_S, text=True, check=False
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout
