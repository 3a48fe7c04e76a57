"""Output of `config check` and `config show`: faults, and settings with their origins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from claudemesh.cli import output
from claudemesh.cli.output import Column
from claudemesh.runtime.exits import CONFIGURATION, OK, ExitWith
from claudemesh.runtime.settings.keys import Key, Table
from claudemesh.runtime.settings.merge import Fault, Given, Merged, Source, plain, toml

# Largest number of faults that are listed for one file; further ones are counted.
_MOST_FAULTS = 100


@dataclass(frozen=True, slots=True)
class Checked:
    """The check of one file, or of the settings that `name` describes."""

    name: str
    exists: bool
    faults: Sequence[dict[str, Any]]


def check(name: str, read: Callable[[], Sequence[Fault] | None]) -> Checked:
    """Run a check that returns faults, or None for a file that does not exist."""
    try:
        faults = read()
    except ExitWith as error:
        return Checked(name, True, [{"file": name, "line": None, "key": None, "message": error.message}])
    return Checked(name, faults is not None, [as_json(fault) for fault in faults or ()])


def as_json(fault: Fault) -> dict[str, Any]:
    """Return a fault as JSON. `message` includes the place of the fault."""
    is_file = fault.origin.source is Source.FILE
    return {
        "file": fault.origin.name if is_file else None,
        "line": fault.origin.line,
        "key": fault.key,
        "message": str(fault),
    }


def print_checks(checks: Sequence[Checked], *, as_json: bool) -> int:
    """Print checks, faults on stderr. The exit code is 78 when there is a fault."""
    is_wrong = any(check.faults for check in checks)
    if as_json:
        items = [{"file": check.name, "exists": check.exists, "faults": check.faults} for check in checks]
        output.print_items(items)
        return CONFIGURATION if is_wrong else OK
    for check in checks:
        for fault in check.faults[:_MOST_FAULTS]:
            output.error(fault["message"])
        if len(check.faults) > _MOST_FAULTS:
            output.error(f"{check.name}: {len(check.faults) - _MOST_FAULTS} more faults.")
        if not check.faults:
            output.say(f"{check.name}: {'ok' if check.exists else 'ok (no file)'}")
    return CONFIGURATION if is_wrong else OK


def rows(table: Table, merged: Merged) -> list[dict[str, Any]]:
    """Return each setting as JSON. The value of a secret is null; `set` says whether there is one."""
    return [_row(key, merged.given[key.field]) for key in table.keys]


def print_rows(items: Sequence[dict[str, Any]], *, with_origin: bool) -> None:
    """Print settings as a table."""
    columns = ("setting", Column("value", "body"), *((Column("origin", "body"),) if with_origin else ()))
    cells = [(item["key"], item["shown"], *((item["place"],) if with_origin else ())) for item in items]
    output.table(columns, cells)


def public(item: dict[str, Any]) -> dict[str, Any]:
    """Return a row without its display texts."""
    return {name: value for name, value in item.items() if name not in ("shown", "place")}


def _row(key: Key, given: Given) -> dict[str, Any]:
    origin = given.origin
    return {
        "key": key.label,
        "value": None if key.secret else plain(given.value),
        "secret": key.secret,
        "set": origin.source is not Source.DEFAULT,
        "origin": {"source": origin.source.value, "name": origin.name or None, "line": origin.line},
        "shown": _shown(key, given),
        "place": f"environment {origin}" if origin.source is Source.ENVIRONMENT else str(origin),
    }


def _shown(key: Key, given: Given) -> str:
    if given.value is None:
        return f"({key.default_text.replace('`', '')})"
    return "(set, not shown)" if key.secret else toml(plain(given.value))
