"""Policies that an operator sets on a mesh, and their valid combinations (docs/spec/broker.md, Policies)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from claudemesh.broker.limiter.base import Allowance
from claudemesh.broker.store.types import Mesh
from claudemesh.protocol.errors import InvalidField
from claudemesh.protocol.wire import CONNECTION_POLICIES

_WORDS = {
    "clone_concurrency_policy": CONNECTION_POLICIES,
    "dedupe_retention_mode": ("retention_scoped", "permanent"),
}
_NUMBERS = {
    "dedupe_retention_days": (7, 36_500),
    "message_retention_days": (1, 36_500),
    "rate_limit_per_minute": (1, 1_000_000_000),
    "member_rate_limit_per_minute": (1, 1_000_000_000),
    "member_bytes_per_minute": (1024, 1_000_000_000_000_000),
    "stored_bytes": (1024, 1_000_000_000_000_000_000),
    "member_stored_bytes": (1024, 1_000_000_000_000_000_000),
    "member_topics": (0, 1_000_000),
    "member_subscriptions": (0, 1_000_000),
    "member_invites": (0, 1_000_000),
    "audit_retention_days": (1, 36_500),
    "audit_events": (1, 100_000_000),
}
POLICIES = frozenset(_WORDS) | frozenset(_NUMBERS)


def allowance_of(mesh: Mesh) -> Allowance:
    """Return the limits of the mesh and of each member."""
    return Allowance(
        mesh.rate_limit_per_minute,
        mesh.member_rate_limit_per_minute,
        mesh.member_bytes_per_minute,
        mesh.stored_bytes,
        mesh.member_stored_bytes,
    )


def with_policies(mesh: Mesh, changes: Mapping[str, object]) -> Mesh:
    """Return the mesh with these policies. `InvalidField` names the one that is not valid, and why."""
    checked: dict[str, Any] = {name: _check(name, value) for name, value in changes.items()}
    changed = replace(mesh, **checked)
    scoped = changed.dedupe_retention_mode == "retention_scoped"
    if scoped and changed.dedupe_retention_days < changed.message_retention_days:
        raise InvalidField(
            "retention_mismatch",
            "dedupe_retention_days",
            f"dedupe_retention_days ({changed.dedupe_retention_days}) must not be less than "
            f"message_retention_days ({changed.message_retention_days}), so that no message outlives its id.",
        )
    return changed


def _check(name: str, value: object) -> object:
    if name in _WORDS:
        if value not in _WORDS[name]:
            raise InvalidField("invalid_policy", name, f"{name} must be one of {', '.join(_WORDS[name])}.")
        return value
    low, high = _NUMBERS[name]
    if type(value) is not int or not low <= value <= high:
        raise InvalidField("invalid_policy", name, f"{name} must be a whole number from {low} to {high}.")
    return value
