"""Tables: columns, and the text of their cells on a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from claudemesh.runtime.terminal import safe

# `time` is a time of ISO 8601: the time of day on a terminal. `age` is one that is relative to now there.
# `seconds` is a duration and `bytes` a size, both with a unit there. `body` is a text of any length, which is
# cut to the width of a terminal.
Kind: TypeAlias = Literal["text", "number", "time", "age", "seconds", "bytes", "body"]
# Fields that hold text of any length, and fields that a narrow terminal leaves out.
_BODIES = ("summary", "data", "error", "message")
_EXTRAS = ("member_id",)
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


@dataclass(frozen=True, slots=True)
class Column:
    """A column. Its title is the word of the field.

    `is_key` marks the name or id by which other commands find the row. An `is_extra` column is left out on a
    terminal that is too narrow for it.
    """

    title: str
    kind: Kind = "text"
    is_key: bool = False
    is_extra: bool = False

    @property
    def header(self) -> str:
        """The title as the first line of the table shows it."""
        return self.title.removesuffix("_at").replace("_", " ").upper()


def as_columns(columns: Sequence[str | Column]) -> list[Column]:
    """Return columns, of which one may be given by the name of its field, which tells its kind."""
    return [_of_field(column) if isinstance(column, str) else column for column in columns]


def _of_field(name: str) -> Column:
    if name.endswith("_at"):
        return Column(name, "age")
    if name.endswith("_s"):
        return Column(name.removesuffix("_s"), "seconds")
    if name.endswith("_bytes"):
        return Column(name.removesuffix("_bytes"), "bytes")
    return Column(name, "body" if name in _BODIES else "text", is_extra=name in _EXTRAS)


def key_of(columns: Sequence[Column]) -> int:
    """Return the place of the key: of the first column, unless another one is marked."""
    return next((place for place, column in enumerate(columns) if column.is_key), 0)


def plain_cells(columns: Sequence[Column], row: Sequence[object]) -> list[str]:
    """Return a row for a pipe: each value on one line and in full."""
    return [safe(_word(value)) for _, value in zip(columns, row, strict=True)]


def terminal_cells(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> list[list[str]]:
    """Return rows for a terminal, before bodies are cut."""
    return [[safe(_shown(column, value)) for column, value in zip(columns, row, strict=True)] for row in rows]


def _shown(column: Column, value: object) -> object:
    if column.kind == "body":
        return " ".join(str(_word(value)).split())
    if column.kind == "bytes" and value is not None:
        return _size(float(str(value)))
    if column.kind in ("time", "age", "seconds") and value not in (None, ""):
        # Imported here: only times on a terminal need it.
        from claudemesh.cli.times import clock, duration, relative

        if column.kind == "seconds":
            return duration(float(str(value)))
        return (clock if column.kind == "time" else relative)(str(value))
    return _word(value)


def _size(size: float) -> str:
    """Return a size in its largest unit, such as `512 B`, `1.5 MiB` or `128 GiB`."""
    for unit in _SIZES:
        if size < _STEP or unit == _SIZES[-1]:
            break
        size /= _STEP
    return f"{size:.1f}".removesuffix(".0") + f" {unit}"


def _word(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else value
