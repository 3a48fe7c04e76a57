"""Tables on a terminal: aligned for every script, cut where they may be cut, and never wider than it."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from claudemesh.cli import times
from claudemesh.cli.table import Column, as_columns, plain_cells, terminal_cells
from claudemesh.cli.terminal_table import draw, draw_records, layout

COLUMNS = [Column("name"), Column("message", "body"), Column("count", "number"), Column("key", is_extra=True)]
LONG = "日本語のとても長いテキスト " * 9
ROWS = [("alice", "short", 7, "k" * 36), ("李小龍", LONG, 12_000, "k" * 36), ("👍🏽 bob", "ü\n\tv", 1, None)]


def test_the_name_of_a_field_tells_the_kind_of_its_column() -> None:
    """A list that names its fields has ages, durations and columns that a narrow terminal leaves out."""
    made = as_columns(("name", "last_seen_at", "every_s", "summary", "member_id"))
    assert [column.kind for column in made] == ["text", "age", "seconds", "body", "text"]
    assert [column.header for column in made] == ["NAME", "LAST SEEN", "EVERY", "SUMMARY", "MEMBER ID"]
    assert [column.is_extra for column in made] == [False, False, False, False, True]


def drawn(width: int) -> list[str]:
    """The table at a width."""
    cells = terminal_cells(COLUMNS, ROWS)
    widths = layout(COLUMNS, cells, width)
    assert widths is not None
    return draw(COLUMNS, cells, widths, headers=True, colour=False)


@pytest.mark.parametrize("width", [50, 80, 200])
def test_columns_stand_under_each_other_also_for_wide_characters(width: int) -> None:
    """A column begins at the same cell of the terminal in every row."""
    lines = drawn(width)
    assert {cell_len(line) <= width for line in lines} == {True}
    starts = [
        cell_len(line[: line.index(text)])
        for line, text in zip(lines[:3], ("MESS", "short", "日本"), strict=True)
    ]
    assert len(set(starts)) == 1
    ends = [
        cell_len(line[: line.index(text) + len(text)])
        for line, text in zip(lines[:3], ("COUNT", "7", "12000"), strict=True)
    ]
    assert len(set(ends)) == 1


def test_only_a_body_is_cut_and_an_extra_column_goes_first() -> None:
    """A name stays whole, because the next command needs it."""
    wide, narrow = drawn(200), drawn(80)
    assert "KEY" in wide[0]
    assert "KEY" not in narrow[0]
    assert narrow[2].startswith("李小龍  日本")
    assert "…  12000" in narrow[2]
    assert "ü v" in narrow[3]


def test_a_table_that_does_not_fit_becomes_a_list_of_fields() -> None:
    """No line is broken in the middle of a name."""
    cells = terminal_cells(COLUMNS, ROWS)
    assert layout(COLUMNS, cells, 20) is None
    assert draw_records(COLUMNS, cells, colour=False)[:2] == ["NAME     alice", "MESSAGE  short"]


@given(st.lists(st.tuples(st.text(), st.text()), max_size=4), st.integers(1, 300))
def test_no_text_breaks_a_row_or_reaches_the_terminal_as_control(
    rows: list[tuple[str, str]], width: int
) -> None:
    """One line a row, for any text of other members; markup is text."""
    columns = as_columns(("name", Column("message", "body")))
    cells = terminal_cells(columns, [*rows, ("[red]x[/red]", ":smile:")])
    widths = layout(columns, cells, width)
    if widths is None:
        return
    lines = draw(columns, cells, widths, headers=False, colour=False)
    assert len(lines) == len(rows) + 1
    assert not any(character < " " or "\x7f" <= character < "\xa0" for line in lines for character in line)
    assert lines[-1].startswith("[red]x[/red]")


def test_without_colour_there_is_no_escape_and_with_it_only_colours() -> None:
    """NO_COLOR, TERM=dumb and --no-color."""
    cells = terminal_cells(COLUMNS, ROWS)
    plain = draw(COLUMNS, cells, [8, 20, 5, 0], headers=True, colour=False)
    coloured = draw(COLUMNS, cells, [8, 20, 5, 0], headers=True, colour=True)
    assert "\x1b" not in "".join(plain)
    assert "\x1b[1m" in coloured[0]


def test_a_time_is_shown_in_the_zone_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its zone; the date is left out of a list that goes on unless it is another day."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert times.local("2026-01-31T12:00:00.400Z") == "2026-01-31 13:00:00 CET"
        assert times.precise("2026-07-31T12:00:00.400Z") == "2026-07-31 14:00:00.400 CEST"
        assert times.clock("2026-01-31T11:00:00Z", NOW) == "12:00:00 CET"
        assert times.clock("2026-01-30T11:00:00Z", NOW) == "2026-01-30 12:00 CET"
    finally:
        monkeypatch.undo()
        time.tzset()


NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("iso", "shown"),
    [
        ("2026-01-31T12:00:00.400Z", "now"),
        ("2026-01-31T11:59:48Z", "12 s ago"),
        ("2026-01-31T11:55:00Z", "5 min ago"),
        ("2026-01-31T09:00:00Z", "3 h ago"),
        ("2026-01-19T12:00:00Z", "12 d ago"),
        ("2026-01-31T15:00:00Z", "in 3 h"),
    ],
)
def test_an_age_is_in_its_largest_unit(iso: str, shown: str) -> None:
    """Short enough for a column."""
    assert times.relative(iso, NOW) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (512, "512 B"), (3 << 19, "1.5 MiB"), (128 << 30, "128 GiB"), (1 << 50, "1024 TiB")],
)
def test_a_size_has_a_unit_on_a_terminal_and_is_a_number_in_a_pipe(size: int, shown: str) -> None:
    """A column of a field in bytes."""
    columns = as_columns(("stored_bytes",))
    assert terminal_cells(columns, [[size]]) == [[shown]]
    assert plain_cells(columns, [size]) == [str(size)]
    assert terminal_cells(as_columns(("age_s",)), [[0]]) == [["0 s"]]
