"""Durations and ids as people write them."""

from __future__ import annotations

import click
import pytest

from claudemesh.cli.options import Duration, FileId


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("30m", 1800), ("24h", 86400), ("7d", 604800)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    """30m, 24h, 7d."""
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "h", "24", "0h", "-1h", "1.5h", "24 h", "1w", "9" * 20 + "d", "٣h"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    """The message shows how to write one."""
    with pytest.raises(click.BadParameter, match="24h"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize("text", ["../x", "", "01HZ", "01hz0000000000000000000000", "8" * 26])
def test_a_text_that_is_no_id_of_a_file_is_refused_with_the_command_that_lists_them(text: str) -> None:
    """A path is the usual mistake."""
    with pytest.raises(click.BadParameter, match="claudemesh file list"):
        FileId().convert(text, None, None)
    assert FileId().convert("01HZ0000000000000000000000", None, None) == "01HZ0000000000000000000000"
