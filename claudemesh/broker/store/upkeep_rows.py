"""Rows of the jobs: absent ephemeral members, the last runs, and what sweeps and checks come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Absent:
    """An ephemeral member without a lease; another `last_seen_at` says that it has been here in between."""

    mesh_id: str
    member_id: str
    last_seen_at: int | None


@dataclass(frozen=True, slots=True)
class JobRun:
    """The last run of a job: `lived_ms` is decided by, `finished_at` is wall time for showing."""

    job: str
    lived_ms: int
    finished_at: int
    count: int
    found: int


@dataclass(frozen=True, slots=True)
class Swept:
    """One batch of a sweep: how many went, and where the next begins (None: there is none)."""

    count: int
    after: int | None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that an accept or a sweep never leaves behind: what is wrong, and with which message."""

    kind: str
    broker_message_id: str


# Where a check goes on: the table, and the last key that was looked at there.
CheckPosition: TypeAlias = tuple[str, Any]


@dataclass(frozen=True, slots=True)
class Checked:
    """One batch of a check: what was found, how many rows were looked at, and where to go on."""

    findings: tuple[Finding, ...]
    rows: int
    position: CheckPosition | None
