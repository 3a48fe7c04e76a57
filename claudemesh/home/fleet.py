"""Limits of all daemons of a home: `fleet.toml`, and the share of one of them.

docs/spec/lifecycle.md, Services, says what they bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from claudemesh.home.paths import DaemonPaths
from claudemesh.runtime.settings.document import Document, read_own_document
from claudemesh.runtime.settings.keys import setting, table_of
from claudemesh.runtime.settings.merge import Merged, file_layer, merge
from claudemesh.runtime.settings.rules import Number

INVALID = "invalid_fleet"
# An idle daemon has 63 MiB of data.
LEAST_MEMORY = 256 << 20
LEAST_DISK = 64 << 20
_MOST_BYTES = 1 << 50


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """The settings of fleet.toml."""

    max_daemons: int = setting(
        Number(1, 1000), "Daemons that `daemon up --all` lets run at the same time.", default=100
    )
    total_memory_budget: int | None = setting(
        Number(LEAST_MEMORY, _MOST_BYTES),
        "Bytes of memory of all daemons. Each needs a share of 256 MiB. The share is the `MemoryMax` of a "
        "service that is installed.",
        default=None,
        default_text="no limit",
    )
    total_disk_budget: int | None = setting(
        Number(LEAST_DISK, _MOST_BYTES),
        "Bytes on the disk of all daemons. Each needs a share of 64 MiB. The share is its "
        "`[disk] reserved_bytes`, unless that is smaller.",
        default=None,
        default_text="no limit",
    )


TABLE = table_of("fleet.toml", FleetSettings)


@dataclass(frozen=True, slots=True)
class Share:
    """The limits of one daemon, and the number of daemons that the budgets allow."""

    daemons: int
    memory_bytes: int | None
    disk_bytes: int | None


def load_fleet(home: Path) -> FleetSettings:
    """Read fleet.toml; without it the defaults apply. `ExitWith` 78 names the key and the allowed values."""
    document = read_own_document(home / TABLE.file, INVALID)
    return FleetSettings(**merge_fleet(document).require(INVALID))


def merge_fleet(document: Document | None) -> Merged:
    """Return the settings of a fleet.toml with the origin of each, and all faults."""
    layer, faults = file_layer(TABLE, document)
    return merge(TABLE, layer, faults=faults)


def share_of(fleet: FleetSettings, meshes: int) -> Share:
    """Return the share of one of the daemons of this many meshes.

    A budget that gives each less than a daemon needs allows fewer daemons.
    """
    memory, disk = fleet.total_memory_budget, fleet.total_disk_budget
    allowed = fleet.max_daemons
    if memory is not None:
        allowed = min(allowed, memory // LEAST_MEMORY)
    if disk is not None:
        allowed = min(allowed, disk // LEAST_DISK)
    running = max(1, min(meshes, allowed))
    return Share(
        allowed,
        None if memory is None else memory // running,
        None if disk is None else disk // running,
    )


def share_in(home: Path) -> Share:
    """Return the share of one of the daemons of a home."""
    folders = (home / "daemon").glob("*")
    return share_of(
        load_fleet(home), sum(DaemonPaths(home, path.name).membership.exists() for path in folders)
    )
