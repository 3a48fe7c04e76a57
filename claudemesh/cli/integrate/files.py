"""Changes of a user's files: shown as a diff, written with a backup, and taken back.

Crash story: the backup is written before the file, and removed behind its restoration. A kill between two
steps leaves a state from which the same command goes on.
"""

from __future__ import annotations

import difflib
import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.files import sync_dir, write_atomic
from claudemesh.runtime.oserrors import cannot

_SUFFIX: Final = ".before-claudemesh"
_NO_LAST_NEWLINE: Final = "\n\\ No newline at end of file"
_PUBLIC: Final = 0o644
_PRIVATE: Final = 0o600


@dataclass(frozen=True, slots=True)
class Change:
    """The content of a file before and after; None is a file that is not there."""

    path: Path
    before: bytes | None
    after: bytes | None
    # Whether other text of the user is in the file, so that its first content is kept.
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of configuration file, as functions of its text."""

    # Adds the entries of claudemesh to a text that has none.
    merge: Callable[[str], str]
    # Removes them.
    strip: Callable[[str], str]
    # The values of a text, to compare.
    values: Callable[[str], Any]
    empty: str


def backup_of(path: Path) -> Path:
    """Return the path of the copy of a file as it was before."""
    return path.with_name(path.name + _SUFFIX)


def merged(path: Path, form: Format) -> Change:
    """Return the change that adds the entries to a file. `ExitWith` when it cannot be read."""
    before = read(path)
    text = form.empty if before is None else _decoded(path, before)
    try:
        after = form.merge(form.strip(text) if text.strip() else form.empty)
        if before is not None and form.values(after) == form.values(text):
            after = text
    except ValueError as error:
        raise unreadable(path, error) from error
    return Change(path, before, after.encode(), is_shared=True)


def restored(path: Path, form: Format) -> Change:
    """Return the change that takes the entries out of a file.

    The file becomes what it was, byte for byte, when nothing else in it was changed since.
    """
    before = read(path)
    if before is None:
        return Change(path, None, None, is_shared=True)
    kept = read(backup_of(path))
    try:
        text = _decoded(path, before)
        rest = form.strip(text)
        if kept is not None and _same(form, rest, _decoded(backup_of(path), kept)):
            return Change(path, before, kept, is_shared=True)
        if kept is None and rest != text and not form.values(rest):
            return Change(path, before, None, is_shared=True)
    except ValueError as error:
        raise unreadable(path, error) from error
    return Change(path, before, rest.encode(), is_shared=True)


def _same(form: Format, rest: str, kept: str) -> bool:
    if not kept.strip():
        return not form.values(rest)
    return bool(form.values(rest) == form.values(form.strip(kept)))


def diff(changes: Iterable[Change]) -> str:
    """Return the changes as a unified diff."""
    lines: list[str] = []
    for change in changes:
        if change.before == change.after:
            continue
        old = "/dev/null" if change.before is None else str(change.path)
        new = "/dev/null" if change.after is None else str(change.path)
        lines += difflib.unified_diff(_lines(change.before), _lines(change.after), old, new, lineterm="")
    return "\n".join(lines)


def apply(changes: Iterable[Change]) -> list[Path]:
    """Write the changes, and return the paths of files that are now other ones."""
    done = []
    for change in changes:
        if change.before == change.after:
            continue
        try:
            _write(change)
        except OSError as error:
            raise cannot("write", error, change.path) from error
        done.append(change.path)
    return done


def forget(changes: Iterable[Change]) -> None:
    """Remove the backups of restored files."""
    for change in changes:
        if change.is_shared:
            backup_of(change.path).unlink(missing_ok=True)


def read(path: Path) -> bytes | None:
    """Return the content of a file, None without one."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot("read", error, path) from error


def unreadable(path: Path, error: ValueError) -> ExitWith:
    """Return the refusal of a file that is not what its client reads."""
    return ExitWith(
        CONFIGURATION,
        "settings_unreadable",
        f"{path} cannot be read: {error}. Nothing was changed. Correct the file, or add the server by hand "
        "(docs/agents.md).",
    )


def _write(change: Change) -> None:
    # The file behind a link is written: settings are often kept in another folder.
    path = change.path.resolve()
    if change.after is None:
        path.unlink(missing_ok=True)
        sync_dir(path.parent)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if change.before is not None else _mode(change)
    if change.is_shared and not mode & stat.S_IWUSR:
        # It could be replaced. A file that its owner keeps from being written is not.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    backup = backup_of(change.path)
    if change.is_shared and change.before is not None and not backup.exists():
        write_atomic(backup, change.before, mode)
    write_atomic(path, change.after, mode)


def _mode(change: Change) -> int:
    return _PRIVATE if change.is_shared else _PUBLIC


def _decoded(path: Path, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise unreadable(path, ValueError("it is not UTF-8")) from error


def _lines(content: bytes | None) -> list[str]:
    """Return the lines of a file for a diff. The last one has the mark of `diff` when it has no newline."""
    *lines, rest = ("" if content is None else content.decode(errors="replace")).split("\n")
    return [*lines, rest + _NO_LAST_NEWLINE] if rest else lines
