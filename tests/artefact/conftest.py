"""The archive of this checkout, built if need be; a home that is new in each test."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.hosts import Host, two_hosts
from tests.support.pyz import PYZ, build


@pytest.fixture(scope="session")
def pyz() -> Path:
    """dist/claudemesh.pyz, up to date."""
    build()
    return PYZ


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def cache(home: Path) -> Path:
    """Return the folder where the archive unpacks for that home. It does not exist yet."""
    return home / ".cache" / "claudemesh"


@pytest.fixture
def hosts(pyz: Path) -> Generator[tuple[Host, Host]]:
    """Two hosts that have never seen claudemesh; what they start is ended."""
    with two_hosts() as made:
        yield made
