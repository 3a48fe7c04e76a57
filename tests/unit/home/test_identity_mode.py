"""Identity mode by environment and options (docs/spec/lifecycle.md, Identity modes)."""

from __future__ import annotations

import itertools

import pytest

from claudemesh.home.identity_mode import identity_mode

ENVIRONMENTS = ("machine", "container", "kubernetes", "ci", "runpod")


@pytest.mark.parametrize(
    ("environment", "ephemeral", "warning"),
    [
        ("machine", False, None),
        ("container", False, None),
        ("kubernetes", True, None),
        ("ci", True, None),
        ("runpod", False, "runpod_persistent_default_assumed"),
    ],
)
def test_the_default_follows_the_environment(environment: str, ephemeral: bool, warning: str | None) -> None:
    """A new member without an option."""
    mode = identity_mode(environment, asked=None, is_member=False)
    assert (mode.ephemeral, mode.warning) == (ephemeral, warning)


@pytest.mark.parametrize(("environment", "is_member"), list(itertools.product(ENVIRONMENTS, (False, True))))
def test_an_option_overrides_each_environment(environment: str, is_member: bool) -> None:
    """A persistent member where files do not last is warned of; the option itself is never overruled."""
    asked = identity_mode(environment, asked=True, is_member=is_member)
    assert (asked.ephemeral, asked.warning) == (True, None)
    kept = identity_mode(environment, asked=False, is_member=is_member)
    assert not kept.ephemeral
    expected = "persistent_keypair_in_ci_environment" if environment in ("ci", "kubernetes") else None
    assert kept.warning == expected


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_membership_on_disk_keeps_its_identity(environment: str) -> None:
    """Also in CI, with the warning."""
    mode = identity_mode(environment, asked=None, is_member=True)
    assert not mode.ephemeral
    if environment in ("ci", "kubernetes"):
        assert mode.warning == "persistent_keypair_in_ci_environment"
