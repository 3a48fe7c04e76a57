"""Rows of the jobs: absent ephemeral members, and the last runs."""

from __future__ import annotations

from dataclasses import dataclass


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
