"""Writes docs/configuration.md from the table of keys; `--check` fails when the page says something else."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

from claudemesh.daemon.settings import KEYS, DaemonSettings, Key

PAGE = Path(__file__).parents[1] / "docs/configuration.md"
_HEAD = """# Settings of a daemon

`config.toml` in `$CLAUDEMESH_HOME/daemon/<mesh>/`. Every key may be left out. A wrong key or value names
itself and what is allowed: at a start the daemon ends with exit 78, at a reload (`claudemesh daemon
reload`, or SIGHUP) nothing changes.

This page is made by `build/configuration.py`.
"""


def page() -> str:
    """Return the page as it should be."""
    parts = [_HEAD]
    for section, keys in groupby(KEYS, key=lambda key: key.section):
        parts.append(f"\n## [{section}]\n\n| key | takes | default | reload | |\n|---|---|---|---|---|\n")
        parts += [_row(key) for key in keys]
    return "".join(parts)


def _row(key: Key) -> str:
    default = key.default_text or f"`{_toml(getattr(DaemonSettings(), key.field))}`"
    reload = "yes" if key.live else "restart"
    return f"| `{key.name}` | {key.rule.allowed()} | {default} | {reload} | {key.text} |\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        sys.exit(f"{PAGE} is out of date: run build/configuration.py")
