"""The memory in which a Postgres of the tests may lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.postgres import left_in

FILES = ("memory.max", "memory.current", "inactive_file")


def test_what_is_left_of_a_limit_counts(tmp_path: Path) -> None:
    """Unused pages of files are given back, and count as left."""
    (tmp_path / "memory.max").write_text("8000\n")
    (tmp_path / "memory.current").write_text("7000\n")
    (tmp_path / "memory.stat").write_text("anon 5000\nfile 2000\ninactive_file 500\n")
    assert left_in(tmp_path, *FILES) == 1500


def test_a_group_without_a_limit_has_no_figure(tmp_path: Path) -> None:
    """The other bounds decide."""
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("7000\n")
    (tmp_path / "memory.stat").write_text("")
    with pytest.raises(ValueError, match="max"):
        left_in(tmp_path, *FILES)
