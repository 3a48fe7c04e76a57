"""Host fingerprint, to detect cloned images and copied homes (docs/spec/lifecycle.md, Clones)."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

_MACHINE_ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_NET = Path("/sys/class/net")
_VIRTUAL = re.compile(r"^(lo|docker|br-?|bridge|veth|virbr|tun|tap|wg|tailscale|ppp)")


def host_fingerprint() -> str:
    """Return sha256(host id, first stable MAC) in hex, or "" where neither can be read."""
    if not sys.platform.startswith("linux"):
        return ""
    mac = _first_mac()
    host_id = _machine_id() or mac
    if not host_id:
        return ""
    return hashlib.sha256(f"{host_id}{mac}".encode()).hexdigest()


def _machine_id() -> str:
    for path in _MACHINE_ID_FILES:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text:
            return text
    return ""


def _first_mac() -> str:
    try:
        names = [entry.name for entry in _NET.iterdir() if not _VIRTUAL.match(entry.name)]
    except OSError:
        return ""
    for name in sorted(names, key=lambda name: (not name.startswith(("en", "eth")), name)):
        try:
            mac = (_NET / name / "address").read_text().strip()
        except OSError:
            continue
        if mac and mac != "00:00:00:00:00:00":
            return mac
    return ""
