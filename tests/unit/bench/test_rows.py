"""Rows of the bench that a machine cannot measure: they are named before the start, and the others run."""

from __future__ import annotations

from pathlib import Path

import pytest

import bench


def test_rows_beside_a_server_that_is_not_installed_are_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every server of a peer is looked for, and the rows that need none are kept."""
    monkeypatch.setenv("PATH", str(tmp_path))
    kept = [row.name for row in bench.measurable(bench.ROWS)]
    said = capsys.readouterr().err.splitlines()
    assert len(kept) + len(said) == len(bench.ROWS)
    assert "accept" in kept
    assert [line for line in said if not line.startswith("skipped: beside ")] == []
    nats = [line for line in said if line.startswith("skipped: beside nats")]
    if Path("/usr/sbin/nats-server").exists():
        return
    reason = "nats-server is not installed (Debian: apt-get install nats-server)"
    assert [line.partition("flight: ")[2] for line in nats] == [reason, reason]


def test_a_bench_of_skipped_rows_alone_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if Path("/usr/sbin/nats-server").exists():
        pytest.skip("nats-server is installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["bench", "beside nats"])
    assert bench.main() == 0
    assert capsys.readouterr().out == ""
