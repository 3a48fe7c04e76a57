"""Tables on a terminal, laid out and drawn by rich. Only a table on a terminal imports it."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from claudemesh.cli.table import Column

_GAP = 2
# A body is not cut below this width; a table that needs more room is printed as a list of fields.
_SHORTEST_BODY = 12
# A body that is cut to this width is worth more than an extra column.
_READABLE_BODY = 40


def layout(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int, least: Sequence[int] | None = None
) -> list[int] | None:
    """Return the width of each column: 0 for one that is left out, None when the table does not fit.

    `least` are the widths of rows that are printed already. Extra columns are left out first, from the right,
    until bodies can be readable. Then bodies shrink, the widest first.
    """
    widths = [
        max([least[place] if least else 0, *map(cell_len, _texts(column, place, cells))])
        for place, column in enumerate(columns)
    ]
    bodies = [place for place, column in enumerate(columns) if column.kind == "body"]
    readable = [min(each, _READABLE_BODY) if place in bodies else each for place, each in enumerate(widths)]
    for place in reversed([place for place, column in enumerate(columns) if column.is_extra]):
        if _total(readable) > width:
            readable[place] = widths[place] = 0
    for _ in range(max(0, _total(widths) - width)):
        wide = [place for place in bodies if widths[place] > _shortest(columns[place])]
        if not wide:
            return None
        widths[max(wide, key=lambda place: widths[place])] -= 1
    return widths


def _texts(column: Column, place: int, cells: Sequence[Sequence[str]]) -> list[str]:
    return [column.header, *(row[place] for row in cells)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (sum(1 for width in widths if width) - 1)


def _shortest(column: Column) -> int:
    return max(cell_len(column.header), _SHORTEST_BODY)


def draw(
    columns: Sequence[Column],
    cells: Sequence[Sequence[str]],
    widths: Sequence[int],
    *,
    headers: bool,
    colour: bool,
) -> list[str]:
    """Return the lines of a table whose columns have these widths. A longer cell is cut."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=headers, header_style="bold")
    shown = [place for place, width in enumerate(widths) if width]
    for place in shown:
        column = columns[place]
        table.add_column(
            Text(column.header),
            # rich counts the gap as part of a column.
            width=widths[place],
            justify="right" if column.kind in ("number", "seconds") else "left",
            no_wrap=True,
            overflow="ellipsis",
            style="dim" if column.kind in ("time", "age") else "",
        )
    for row in cells:
        table.add_row(*(Text(row[place]) for place in shown))
    return _print(table, sum(widths) + _GAP * (len(shown) + 1), colour=colour)


def draw_records(columns: Sequence[Column], cells: Sequence[Sequence[str]], *, colour: bool) -> list[str]:
    """Return the lines of a table that is too wide for the terminal: the fields of each row under each
    other."""
    lines: list[str] = []
    for row in cells:
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=False)
        table.add_column(style="bold")
        table.add_column()
        for column, text in zip(columns, row, strict=True):
            table.add_row(Text(column.header), Text(text, no_wrap=True, overflow="ignore"))
        lines += ([""] if lines else []) + _print(table, 10_000, colour=colour)
    return lines


def _print(table: Table, width: int, *, colour: bool) -> list[str]:
    into = io.StringIO()
    console = Console(
        file=into,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        no_color=not colour,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
        safe_box=False,
    )
    console.print(table)
    return [line.rstrip() for line in into.getvalue().splitlines()]
