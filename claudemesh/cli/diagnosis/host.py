"""Facts about the host: disk, databases, cache, interpreter and units of the service manager."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from claudemesh.cli.diagnosis.facts import HostFacts, UnitFacts

_UNIT_FOLDERS = ("/etc/systemd/system", "~/.config/systemd/user")
_MOST_UNIT_BYTES = 64 << 10


def host_facts(home: Path) -> HostFacts:
    """Collect the facts about the host."""
    usage, room = shutil.disk_usage(home), os.statvfs(home)
    cache = cache_folder()
    return HostFacts(
        free_bytes=usage.free,
        total_bytes=usage.total,
        free_inodes=room.f_favail,
        total_inodes=room.f_files,
        cache=cache,
        is_cache_noexec=cache is not None and _is_noexec(cache),
        python_shim=_python_shim() if zipfile.is_zipfile(sys.argv[0]) else None,
        units=tuple(_units()),
    )


def verdict_of(path: Path) -> str:
    """Return `ok` for a sound database, else what is damaged. No daemon has it open."""
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            return str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
        finally:
            database.close()
    except sqlite3.Error as error:
        return str(error)


def cache_folder() -> Path | None:
    """Return the folder to which the file claudemesh.pyz unpacks itself; build/launcher.py has the rule."""
    chosen = os.environ.get("CLAUDEMESH_CACHE")
    if chosen:
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # noqa: PTH117
        return Path(base) / "claudemesh"
    home = os.environ.get("HOME")
    return Path(home).absolute() / ".cache" / "claudemesh" if home else None


def _is_noexec(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return bool(os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0))
    except OSError:
        return False


def _python_shim() -> Path | None:
    """Return `python3` of the PATH when it is a script, as that of pyenv and asdf."""
    found = shutil.which("python3")
    if found is None:
        return None
    try:
        with Path(found).open("rb") as file:
            return Path(found) if file.read(2) == b"#!" else None
    except OSError:
        return None


def _units() -> Iterator[UnitFacts]:
    for folder in _UNIT_FOLDERS:
        # Without a home the folder of the user stays as it is, and is found nowhere.
        found = Path(os.path.expanduser(folder))  # noqa: PTH111 - never raises
        for path in sorted(found.glob("claudemesh*.service")):
            try:
                with path.open(encoding="utf-8", errors="replace") as file:
                    text = file.read(_MOST_UNIT_BYTES)
            except OSError:
                continue
            yield unit_facts(path, text)


def unit_facts(path: Path, text: str) -> UnitFacts:
    """Return the facts about a unit: the programs of its ExecStart that do not exist, and its type."""
    missing: list[str] = []
    notifies = False
    for line in text.splitlines():
        name, _, value = (part.strip() for part in line.partition("="))
        if name == "Type":
            notifies = value.startswith("notify")
        if name == "ExecStart":
            missing = [word for word in _words(value)[:3] if _is_path(word) and not Path(word).exists()]
    return UnitFacts(path, tuple(missing), notifies)


def _words(value: str) -> list[str]:
    try:
        return [word.lstrip("-@:+!") if place == 0 else word for place, word in enumerate(shlex.split(value))]
    except ValueError:
        return []


def _is_path(word: str) -> bool:
    """Whether a word is an absolute path without a specifier of the service manager."""
    return word.startswith("/") and "%" not in word
