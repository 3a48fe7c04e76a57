"""Writes docs/configuration.md from the tables of keys; `--check` fails when the page says something else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from claudemesh.broker.settings import TABLE as BROKER
from claudemesh.daemon.hooks.manifest import TABLE as HOOKS
from claudemesh.daemon.settings import TABLE as DAEMON
from claudemesh.home.fleet import TABLE as FLEET
from claudemesh.runtime.settings.keys import Key, Table
from claudemesh.runtime.settings.merge import toml

PAGE = Path(__file__).parents[1] / "docs/configuration.md"
_HEAD = """# Configuration

Four files hold settings. Each is optional, and so is every key. This page is made by
`build/configuration.py` from the tables of keys in the code.

| file | directory | settings of |
|---|---|---|
| [`config.toml`](#configtoml) | `$CLAUDEMESH_HOME/daemon/<mesh>/` | a daemon |
| [`hooks.toml`](#hookstoml) | `$CLAUDEMESH_HOME/daemon/<mesh>/hooks/` | the hooks of a daemon |
| [`fleet.toml`](#fleettoml) | `$CLAUDEMESH_HOME/` | all daemons of the host |
| [`broker.toml`](#brokertoml) | the data directory of the broker | a broker |

* `claudemesh config check` checks the files of this host and lists every fault.
* `claudemesh config show --origin` shows the settings of a daemon, the origin of each, and each value that
  the running daemon does not use yet.
* `claudemesh broker config check` and `claudemesh broker config show --origin` do the same for a broker;
  `show` adds the values of the broker that runs with the data directory, where they differ.

An error names the file and line, the environment variable or the flag; the key; the value; and the allowed
values. For an unknown name it names the nearest one. At a start the program ends with exit code 78. At a
reload nothing changes. The values of secrets are never shown.
"""
_CONFIG = """
## config.toml

`claudemesh daemon reload`, or SIGHUP, puts a new value in force. A key with `restart` in its row needs
`claudemesh daemon restart`.
"""
_HOOKS_LINK = "[hooks.md](hooks.md)"
_HOOKS = """
## hooks.toml

One section for each hook, such as `[on-dm]`; {hooks} lists their names. `claudemesh daemon reload` puts a
change in force.

"""
_FLEET = """
## fleet.toml

Limits of all daemons of `$CLAUDEMESH_HOME`. A daemon reads them at its start, and its share of the disk also
at a reload. A budget that gives each daemon less than it needs allows fewer daemons.

"""
_BROKER = """
## broker.toml

The order of precedence is flag, environment, file, default. A list has commas between its items in the
environment. A change needs a restart.

"""


def page() -> str:
    """Return the page as it should be."""
    parts = [_HEAD, _CONFIG]
    for section, keys in groupby(DAEMON.keys, key=lambda key: key.section):
        parts.append(f"\n### [{section}]\n\n" + _table(("reload",), list(keys), _reload))
    parts += [_HOOKS.format(hooks=_HOOKS_LINK), _table((), HOOKS.keys, lambda key: ())]
    parts += [_FLEET, _table((), FLEET.keys, lambda key: ())]
    parts += [_BROKER, _table(("flag", "environment"), BROKER.keys, lambda key: _names(BROKER, key))]
    return "".join(parts)


def _table(
    columns: tuple[str, ...], keys: list[Key] | tuple[Key, ...], cells: Callable[[Key], tuple[str, ...]]
) -> str:
    head = ("key", "allowed", "default", *columns, "")
    rows = [head, ("---",) * len(head)]
    rows += [(f"`{key.name}`", key.rule.allowed(), _default(key), *cells(key), key.text) for key in keys]
    return "".join(f"| {' | '.join(row)} |\n".replace("|  |", "| |") for row in rows).replace(" --- ", "---")


def _default(key: Key) -> str:
    return key.default_text or f"`{toml(key.default())}`"


def _reload(key: Key) -> tuple[str, ...]:
    return ("yes" if key.reload else "restart",)


def _names(table: Table, key: Key) -> tuple[str, ...]:
    return (f"`{key.option}`" if key.flag else "–", f"`{table.variable(key)}`")


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        sys.exit(f"{PAGE} is out of date: run build/configuration.py")
