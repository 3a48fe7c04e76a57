"""Log lines that strangers cause are bounded."""

from __future__ import annotations

import logging

import pytest

from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sparse import SparseLog


def test_a_flood_of_events_is_a_few_lines_and_a_count(caplog: pytest.LogCaptureFixture) -> None:
    """The line after those that were left out says how many they were."""
    now = 100.0
    log = SparseLog(get_logger("sparse"), lambda: now)
    with caplog.at_level(logging.INFO, logger="claudemesh.sparse"):
        for number in range(1000):
            log.info("refused", number=number)
        assert len(caplog.records) == 50
        now += 1.0
        log.warning("refused", number=1000)
        log.warning("refused", number=1001)
    assert len(caplog.records) == 51
    assert caplog.records[-1].fields == {"number": 1000, "unlogged": 950}  # type: ignore[attr-defined]
