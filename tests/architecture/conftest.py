"""The trees of all sources are kept while the rules of this folder are tested."""

from __future__ import annotations

import pytest

from tests.support import parsed


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Free the trees after the last test of the folder."""
    if nextitem is None or nextitem.path.parent != item.path.parent:
        parsed.forget()
