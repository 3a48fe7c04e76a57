"""Merge of settings: flag, then environment, then file, then default. The origin of each value is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from enum import StrEnum
from typing import Any, TypeAlias

import orjson

from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.settings.document import Document
from claudemesh.runtime.settings.keys import Key, Table

# Largest number of characters of a value, and of a name, in an error.
_SHOWN_CHARACTERS = 60
# User and password in a URL.
_USER = re.compile(r"://[^/@\s]*@")


class Source(StrEnum):
    """Sources of values, the strongest first."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Origin:
    """Origin of a value: its source, and the name of the flag, the variable or the file with the line."""

    source: Source
    name: str = ""
    line: int | None = None

    def __str__(self) -> str:
        if self.source is Source.DEFAULT:
            return "default"
        return self.name if self.line is None else f"{self.name}:{self.line}"


@dataclass(frozen=True, slots=True)
class Given:
    """A value and its origin."""

    value: Any
    origin: Origin


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in the settings: its place, the key, and a sentence with the fault and the allowed values."""

    origin: Origin
    key: str
    reason: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.reason}"


# The values that one source sets, by field.
Layer: TypeAlias = Mapping[str, Given]


@dataclass(frozen=True, slots=True)
class Merged:
    """The values that apply, by field, and all faults. A field with a fault has its default."""

    given: Layer
    faults: tuple[Fault, ...]

    @property
    def values(self) -> dict[str, Any]:
        """The values by field, without origins."""
        return {name: given.value for name, given in self.given.items()}

    def require(self, code: str) -> dict[str, Any]:
        """Return the values. `ExitWith` 78 with the first fault when there is one."""
        refuse(self.faults, code)
        return self.values


def refuse(faults: Sequence[Fault], code: str) -> None:
    """Raise `ExitWith` 78 when there are faults: the first, and how many others there are."""
    if not faults:
        return
    more = len(faults) - 1
    text = f" {more} more {'fault' if more == 1 else 'faults'} in the settings." if more else ""
    raise ExitWith(CONFIGURATION, code, f"{faults[0]}{text}")


def merge(table: Table, *layers: Layer, faults: Iterable[Fault] = (), section: str = "") -> Merged:
    """Take each key from the first layer that has it, else its default, and check it by its rule.

    A value that a stronger layer overrides is not checked. `faults` are those found before. `section` is the
    section of the file that the table describes, when the table itself has none.
    """
    given: dict[str, Given] = {}
    found = list(faults)
    for key in table.keys:
        chosen = next((layer[key.field] for layer in layers if key.field in layer), None)
        if chosen is not None:
            try:
                given[key.field] = Given(key.rule.check(_read(table, key, chosen)), chosen.origin)
                continue
            except ValueError as error:
                label = f"[{section}] {key.name}" if section else key.label
                found.append(_wrong_value(key, chosen, label, str(error)))
        given[key.field] = Given(key.default(), Origin(Source.DEFAULT))
    return Merged(given, tuple(found))


def flag_layer(table: Table, flags: Mapping[str, object]) -> Layer:
    """Return the values of flags, by field. None and () are flags that were not given."""
    return {
        key.field: Given(flags[key.field], Origin(Source.FLAG, key.option))
        for key in table.keys
        if flags.get(key.field) not in (None, ())
    }


def environment_layer(table: Table, environment: Mapping[str, str]) -> Layer:
    """Return the values of environment variables."""
    named = {key.field: variable for key in table.keys if (variable := table.variable(key)) is not None}
    return {
        name: Given(environment[variable], Origin(Source.ENVIRONMENT, variable))
        for name, variable in named.items()
        if variable in environment
    }


def file_layer(table: Table, document: Document | None) -> tuple[Layer, list[Fault]]:
    """Return the values of a file, and a fault for each section and key that the table does not know."""
    if document is None:
        return {}, []
    if table.sections == ("",):
        return section_layer(table, document, document.data, ())
    layer: dict[str, Given] = {}
    faults: list[Fault] = []
    for section, values in document.data.items():
        if section not in table.sections:
            faults.append(_unknown_section(table, document, section))
        elif not isinstance(values, dict):
            origin = origin_in(document, section)
            reason = f"{section} must be a section, [{section}], not a value."
            faults.append(Fault(origin, section, reason))
        else:
            inside, more = section_layer(table, document, values, (section,))
            layer.update(inside)
            faults += more
    return layer, faults


def section_layer(
    table: Table, document: Document, values: Mapping[str, Any], path: tuple[str, ...]
) -> tuple[Layer, list[Fault]]:
    """Return the values of one section, which is at this path, and a fault for each unknown key.

    A table without sections describes any section: the entry of a hook, or a file without sections.
    """
    section = path[0] if path and table.sections != ("",) else ""
    layer: dict[str, Given] = {}
    faults: list[Fault] = []
    for name, value in values.items():
        key = table.by_name.get((section, name))
        origin = origin_in(document, *path, name)
        if key is None:
            faults.append(_unknown_key(table, origin, path, section, name))
        else:
            layer[key.field] = Given(value, origin)
    return layer, faults


def origin_in(document: Document, *path: str) -> Origin:
    """Return the place of a key in a file; the line is that of the innermost part that is known."""
    lines = (document.lines.get(path[:length]) for length in range(len(path), 0, -1))
    return Origin(Source.FILE, document.path, next(filter(None, lines), None))


def _wrong_value(key: Key, given: Given, label: str, reason: str) -> Fault:
    """Return the fault of a value that the rule of its key refuses. A secret is not shown."""
    value = "" if key.secret else f", not {shown(given.value)}"
    sentences = f"{label} must be {key.rule.allowed()}{value}.", reason
    return Fault(given.origin, label, " ".join(filter(None, sentences)))


def near(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to a wrong one, or None."""
    if len(name) > _SHOWN_CHARACTERS:
        return None
    # Needed for a wrong name only, and a daemon keeps what it imports.
    import difflib

    found = difflib.get_close_matches(name, list(known), n=1)
    return found[0] if found else None


def shown(value: object) -> str:
    """Return a value as TOML for a message, without a user or a password in a URL; a long one is cut."""
    return cut(_USER.sub("://…@", toml(value)))


def toml(value: object, depth: int = 2) -> str:
    """Return a value in TOML syntax. Of a nested list or a table only the kind is given."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{…}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(item, depth - 1) for item in value)}]" if depth else "[…]"
    if isinstance(value, int | float | date | time):
        try:
            return str(value)
        except ValueError:  # Python cannot print a number of more than 4,300 digits
            return "a number of too many digits"
    # A variable of the environment need not be valid UTF-8.
    return orjson.dumps(str(value).encode(errors="replace").decode()).decode()


def _read(table: Table, key: Key, given: Given) -> object:
    is_text = given.origin.source is not Source.FILE or table.words_in_file
    return key.rule.parse(given.value) if is_text and isinstance(given.value, str) else given.value


def cut(name: str) -> str:
    """Return a text for a message; a long one is cut."""
    return name if len(name) <= _SHOWN_CHARACTERS else f"{name[: _SHOWN_CHARACTERS - 1]}…"


def _unknown_section(table: Table, document: Document, section: str) -> Fault:
    """Return the fault of a section that the file may not have."""
    like = near(section, table.sections)
    names = ", ".join(f"[{name}]" for name in table.sections)
    remedy = f"Did you mean [{like}]?" if like else f"The sections are {names}."
    origin = origin_in(document, section)
    return Fault(origin, section, f"There is no section [{cut(section)}] in {table.file}. {remedy}")


def _unknown_key(table: Table, origin: Origin, path: tuple[str, ...], section: str, name: str) -> Fault:
    """Return the fault of an unknown key. Its value is not shown: it may be a secret under a wrong name."""
    label = f"[{path[0]}] {cut(name)}" if path else cut(name)
    known = [key.name for key in table.keys if key.section == section]
    elsewhere = [key.label for key in table.keys if key.name == name]
    like = near(name, known)
    if elsewhere:
        remedy = f"Did you mean {elsewhere[0]}?"
    elif like:
        remedy = f"Did you mean {like}?"
    else:
        place = f"[{path[0]}]" if path else table.file
        remedy = f"The keys of {place} are {', '.join(known)}."
    return Fault(origin, label, f"There is no key {label}. {remedy}")


def plain(value: object) -> Any:
    """Return a value in its JSON form."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
