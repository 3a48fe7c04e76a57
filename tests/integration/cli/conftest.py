"""A running mesh for the commands."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.processes import Mesh, mesh


@pytest.fixture(scope="module")
def pair() -> Generator[Mesh]:
    """A broker, alice and bob, running."""
    with mesh("alice", "bob") as made:
        yield made
