"""Durations as people write them."""

from __future__ import annotations

import click
import pytest

from claudemesh.cli.options import Duration


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("30m", 1800), ("24h", 86400), ("7d", 604800)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    """30m, 24h, 7d."""
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "h", "24", "0h", "-1h", "1.5h", "24 h", "1w", "9" * 20 + "d", "٣h"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    """The message shows how to write one."""
    with pytest.raises(click.BadParameter, match="24h"):
        Duration().convert(text, None, None)
