"""The bench around its rows: what it skips, and what it keeps when a row fails or the run is interrupted."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

import bench
from benchmarks import report
from benchmarks.against import rows_against
from benchmarks.archive import archive_command
from benchmarks.lab import Lab, OnDisk
from benchmarks.older import Build, NoBuildError, RefusedError, build_of
from benchmarks.rounds import FAILED, INTERRUPTED, measurable, measure
from benchmarks.row import Row
from benchmarks.table import LARGE, ROWS
from benchmarks.worker import answer


@contextmanager
def _no_lab() -> Generator[Lab]:
    yield cast(Lab, None)


def _row(name: str, *rounds: tuple[float, float] | BaseException) -> Row:
    """A row whose measurements end so, one after the other."""
    coming = iter(rounds)

    def measured(_: Lab) -> tuple[float, float]:
        found = next(coming)
        if isinstance(found, BaseException):
            raise found
        return found

    return Row(name, "ms", "the least", "<=", 1.5, measured)


def test_rows_beside_a_server_that_is_not_installed_are_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every server of a peer is looked for, and the rows that need none are kept."""
    monkeypatch.setenv("PATH", str(tmp_path))
    kept = [row.name for row in measurable(ROWS)]
    [title, *said] = capsys.readouterr().err.splitlines()
    assert title == "These rows are skipped:"
    skipped = {name for line in said for name in line.strip().partition(": ")[0].split("; ")}
    assert {row.name for row in ROWS} == {*kept, *skipped}
    assert "accept" in kept
    # A row of an SDK needs the program of its language, or another client beside it.
    others = {name for name in skipped if not name.startswith(("beside ", "sdk "))}
    # Without git there is no older build either.
    assert others == {name for name in others if name.startswith("end to end, loaded, ")}
    if Path("/usr/sbin/nats-server").exists():
        return
    [nats] = [line for line in said if "beside nats" in line]
    assert nats.endswith(": nats-server is not installed (Debian: apt-get install nats-server)")
    assert nats.count("beside nats, ") == len([row for row in ROWS if row.name.startswith("beside nats")])


def test_a_bench_of_skipped_rows_alone_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if Path("/usr/sbin/nats-server").exists():
        pytest.skip("nats-server is installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["bench", "beside nats"])
    assert bench.main() == 0
    assert capsys.readouterr().out == ""


def test_every_peer_stands_beside_both_kinds_of_storage() -> None:
    beside = [row.name.removeprefix("beside ") for row in ROWS if row.name.startswith("beside ")]
    for store in ("embedded", "postgres"):
        assert {name.partition(",")[0] for name in beside if store in name} == {
            "redis",
            "rabbitmq durable",
            "rabbitmq quorum",
            "nats",
        }


def test_names_of_rows_are_unique() -> None:
    names = [row.name for row in ROWS + LARGE]
    assert len(names) == len(set(names))


def test_a_row_that_fails_is_named_and_the_other_rows_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [_row("one", (2.0, 1.0), RuntimeError("the peer has died")), _row("two", (1.0, 1.0), (3.0, 2.0))]
    rows.append(_row("three", OSError("no space"), (1.0, 1.0)))
    assert measure(rows, 2, _no_lab) == FAILED
    assert [row.rounds for row in rows] == [[(2.0, 1.0)], [(1.0, 1.0), (3.0, 2.0)], []]
    assert "failed: one" in capsys.readouterr().err
    said = report.table(rows).splitlines()
    assert "failed: one: RuntimeError: the peer has died" in said
    assert "failed: three: OSError: no space" in said
    assert [line.split()[0] for line in said if " ms " in line] == ["one", "two"]


def test_an_interrupt_keeps_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [_row("one", (2.0, 1.0), (2.0, 1.0)), _row("two", KeyboardInterrupt())]
    assert measure(rows, 2, _no_lab) == INTERRUPTED
    assert rows[0].rounds == [(2.0, 1.0)]
    assert "not measured: two" in report.table(rows).splitlines()
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, INTERRUPTED), (TimeoutError, FAILED)])
def test_a_lab_that_cannot_be_stopped_loses_no_row(error: type[BaseException], code: int) -> None:
    @contextmanager
    def stubborn() -> Generator[Lab]:
        yield cast(Lab, None)
        raise error

    rows = [_row("one", (2.0, 1.0))]
    assert measure(rows, 1, stubborn) == code
    assert rows[0].rounds == [(2.0, 1.0)]


def test_the_file_is_whole_after_each_measurement(tmp_path: Path) -> None:
    """A bench that is killed leaves the rounds until then."""
    path = tmp_path / "rows.json"
    rows = [_row("one", (2.0, 1.0)), _row("two", (1.0, 1.0))]
    seen: list[list[Any]] = []

    def keep() -> None:
        report.save(rows, path)
        seen.append([row["rounds"] for row in json.loads(path.read_text())])

    assert measure(rows, 1, _no_lab, keep) == 0
    assert seen == [[[[2.0, 1.0]], []], [[[2.0, 1.0]], [[1.0, 1.0]]]]


def test_a_row_without_an_aim_is_not_judged() -> None:
    row = Row("a", "ms", "b", "<=", None, lambda _: (2.0, 1.0), rounds=[(2.0, 1.0)])
    assert row.reached is None
    assert "reached" not in report.table([row])
    assert json.loads(report.as_json([row]))[0]["aim"] is None


def test_only_rows_that_measure_one_build_alone_stand_beside_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    build = Build("older", Path(), sys.executable)
    kept = rows_against(ROWS, build)
    assert {row.name for row in kept} == {row.name for row in ROWS if row.alone is not None}
    assert [row for row in kept if not row.ceiling.startswith("older (")] == []
    assert "sdk send, python" in capsys.readouterr().err


def test_a_row_that_another_build_refuses_is_no_failure() -> None:
    rows = [_row("one", RefusedError("older does not run this row: no such topic")), _row("two", (1.0, 2.0))]
    assert measure(rows, 1, _no_lab) == 0
    assert "refused: one: older does not run this row: no such topic" in report.table(rows).splitlines()


def test_the_worker_of_another_build_answers_with_the_error_of_a_row_and_goes_on() -> None:
    answers = io.StringIO()
    answer(cast(Lab, None), ["benchmarks.absent:row\n", "benchmarks.idle:nothing\n"], answers)
    [ready, absent, nothing] = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert ready == {"value": 0.0}
    assert absent["error"].startswith("ModuleNotFoundError: ")
    assert nothing["error"].startswith("AttributeError: ")


def test_a_build_that_is_neither_a_file_nor_a_revision_is_refused() -> None:
    with pytest.raises(NoBuildError, match="no-such-build is neither a file nor a revision"):
        build_of("no-such-build")


@pytest.mark.parametrize(
    ("line", "options"), [("#!/usr/bin/env python3", []), ("#!/usr/bin/env -S python3 -IS", ["-IS"])]
)
def test_an_archive_starts_with_the_options_of_its_first_line(
    tmp_path: Path, line: str, options: list[str]
) -> None:
    archive = tmp_path / "a.pyz"
    archive.write_bytes(line.encode() + b"\nPK\x03\x04\xff")
    [_, *rest] = archive_command(archive)
    assert rest == [*options, str(archive)]


def test_the_postgres_of_the_bench_has_its_data_where_the_brokers_beside_it_have_theirs() -> None:
    """A commit in memory waits for no disk, and the table says that both sides do."""
    server = OnDisk()
    try:
        assert server.folder.parent == Path(tempfile.gettempdir())
    finally:
        server.remove()
