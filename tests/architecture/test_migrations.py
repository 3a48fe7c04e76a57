"""Migrations of each database are numbered without gaps and repetitions."""

from __future__ import annotations

import pytest

from claudemesh.runtime.migrations import load_migrations

PACKAGES = [
    "claudemesh.broker.store.postgres.migrations",
    "claudemesh.broker.store.sqlite.migrations",
    "claudemesh.daemon.sql.inbox",
    "claudemesh.daemon.sql.outbox",
]


@pytest.mark.parametrize("package", PACKAGES)
def test_migrations_have_numbers_of_their_own(package: str) -> None:
    """Two changes that land at the same time may have taken one number."""
    numbers = [one.version for one in load_migrations(package)]
    assert numbers == list(range(1, len(numbers) + 1))
