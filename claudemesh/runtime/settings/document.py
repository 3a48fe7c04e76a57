"""TOML files with the line of each key."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.files import UnsafeFile, read_own
from claudemesh.runtime.oserrors import cannot

# Lines are located in files up to this size in bytes, and for statements of up to this many lines.
_LOCATED_BYTES = 1 << 20
_STATEMENT_LINES = 256
# Depth of sections and keys. Deeper keys are part of a value.
_DEPTH = 2

KeyPath: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file; `lines` holds the line of each key by its path, as far as it is known."""

    path: str
    data: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[KeyPath, int] = field(default_factory=dict)


def parse_document(content: bytes, path: str, code: str) -> Document:
    """Parse TOML. Raise `ExitWith` 78 with this error code for invalid TOML."""
    try:
        text = content.decode()
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # includes a wrong encoding, and a number of 5,000 digits
        detail = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ExitWith(CONFIGURATION, code, f"{path} is not TOML: {detail}.") from error
    return Document(path, data, lines_of(text))


def read_own_document(path: Path, code: str) -> Document | None:
    """Read a file that no other user can change; return None when it does not exist.

    `ExitWith`: 78 with `code` for a file that is not TOML, 78 unsafe_file, or the operating system's error.
    """
    try:
        content = read_own(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnsafeFile as error:
        raise ExitWith(CONFIGURATION, "unsafe_file", f"{error}.") from error
    except OSError as error:
        raise cannot("read", error, path) from error
    return parse_document(content, str(path), code)


def read_document(path: Path, code: str) -> Document | None:
    """Read a file of any owner, also through a link; return None when it does not exist. Raise `ExitWith`
    78."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ExitWith(CONFIGURATION, code, f"Cannot read {path}: {error}.") from error
    return parse_document(content, str(path), code)


def lines_of(text: str) -> dict[KeyPath, int]:
    """Return the line (from 1) of each section and key of a valid document.

    A TOML statement begins on a line of its own and ends at the end of a line. So lines are collected until
    they parse by themselves; the parser knows strings and arrays of several lines. A document that is very
    long, or has a very long statement, is located up to there.
    """
    found: dict[KeyPath, int] = {}
    if len(text) > _LOCATED_BYTES:
        return found
    section: KeyPath = ()
    statement: list[str] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        statement.append(line)
        if len(statement) > _STATEMENT_LINES:
            break
        try:
            data = tomllib.loads("\n".join(statement))
        except (ValueError, RecursionError):
            continue
        is_header = statement[0].lstrip(" \t").startswith("[")
        paths = [path if is_header else section + path for path in _paths(data)]
        if is_header:
            section = paths[-1]
        for path in paths:
            found.setdefault(path, number - len(statement) + 1)
        statement = []
    return found


def _paths(data: Mapping[str, Any], prefix: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of every key down to `_DEPTH`, an outer one before those inside it."""
    for name, value in data.items():
        path = (*prefix, name)
        yield path
        if isinstance(value, dict) and len(path) < _DEPTH:
            yield from _paths(value, path)
