"""Policies of a mesh, and their valid combinations."""

from __future__ import annotations

import pytest

from claudemesh.broker.mesh_policies import with_policies
from claudemesh.broker.store.types import Mesh
from claudemesh.protocol.errors import InvalidField

MESH = Mesh(id="m", slug="team", created_at=0)


def test_policies_are_taken_over_and_the_rest_stays() -> None:
    """One at a time or several."""
    changed = with_policies(MESH, {"rate_limit_per_minute": 10, "clone_concurrency_policy": "prefer_oldest"})
    assert (changed.rate_limit_per_minute, changed.clone_concurrency_policy) == (10, "prefer_oldest")
    assert changed.message_retention_days == MESH.message_retention_days


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clone_concurrency_policy", "newest"),
        ("clone_concurrency_policy", None),
        ("dedupe_retention_mode", "forever"),
        ("dedupe_retention_days", 6),
        ("dedupe_retention_days", True),
        ("dedupe_retention_days", 30.0),
        ("message_retention_days", 0),
        ("rate_limit_per_minute", "10"),
        ("rate_limit_per_minute", 10**12),
    ],
)
def test_a_policy_that_cannot_be_is_named(name: str, value: object) -> None:
    """With what is allowed."""
    with pytest.raises(InvalidField, match="must be") as caught:
        with_policies(MESH, {name: value})
    assert caught.value.fields["field"] == name


def test_a_message_never_outlives_its_id() -> None:
    """Unless ids are kept for ever: otherwise its retry would be taken for a new send."""
    with pytest.raises(InvalidField) as caught:
        with_policies(MESH, {"dedupe_retention_days": 30})
    assert caught.value.code == "retention_mismatch"
    both = with_policies(MESH, {"dedupe_retention_days": 30, "message_retention_days": 30})
    assert both.dedupe_retention_days == 30
    permanent = {"dedupe_retention_mode": "permanent", "message_retention_days": 4000}
    assert with_policies(MESH, permanent).message_retention_days == 4000
