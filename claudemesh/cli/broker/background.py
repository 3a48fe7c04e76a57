"""Start of a broker in the background, for `broker up -d`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from claudemesh.broker.settings import TABLE, BrokerSettings
from claudemesh.cli import output
from claudemesh.cli.background import Service, start
from claudemesh.client.own_broker import LOG_FILE, OwnBroker, find_broker
from claudemesh.runtime.files import make_private_dir
from claudemesh.runtime.own_address import dialled_urls


def start_in_background(settings: BrokerSettings, flags: Mapping[str, Any], as_json: bool) -> int:
    """Start a broker unless one runs with the data directory, wait until it serves; return the exit code."""
    data_dir = settings.data_dir
    found = find_broker(data_dir)
    if found is not None:
        return _say_that_it_runs(found, as_json)
    make_private_dir(data_dir)
    service = Service(
        "broker", data_dir / LOG_FILE, "claudemesh broker logs", lambda pid: _is_up(data_dir, pid)
    )
    pid = start(service, ["broker", "up", *_arguments(flags)], _secrets(flags))
    found = find_broker(data_dir)
    if found is None or pid is None:
        return _say_that_it_runs(found, as_json)
    addresses = " and ".join(dialled_urls(found.url, found.public_urls))
    place = data_dir if settings.database_url is None else "Postgres"
    text = f"started the broker at {addresses} (pid {pid}), data in {place}"
    return output.print_answer(as_json, {"status": "running", **shown(found)}, text)


def shown(found: OwnBroker) -> dict[str, Any]:
    """Return the fields of a running broker as programs read them."""
    return {
        "url": found.dial_url,
        "dialled_urls": dialled_urls(found.url, found.public_urls),
        "public_urls": found.public_urls,
        "pid": found.pid,
        "data_dir": str(found.data_dir),
    }


def _say_that_it_runs(found: OwnBroker | None, as_json: bool) -> int:
    answer = {"status": "already running", **(shown(found) if found else {})}
    return output.print_answer(as_json, answer, f"a broker runs already{f' at {found.url}' if found else ''}")


def _is_up(data_dir: Path, pid: int | None) -> bool:
    found = find_broker(data_dir)
    return found is not None and pid in (None, found.pid)


def _arguments(flags: Mapping[str, Any]) -> list[str]:
    """Return the flags that were given, as arguments; those that hold a secret are left out."""
    arguments: list[str] = []
    for key in TABLE.keys:
        value = flags.get(key.field)
        if key.secret or value is None or value == ():
            continue
        if isinstance(value, bool):
            arguments += [key.option] if value != key.default() else []
            continue
        for item in value if isinstance(value, tuple) else (value,):
            arguments += [key.option, str(item)]
    return arguments


def _secrets(flags: Mapping[str, Any]) -> dict[str, str]:
    """Return the flags that hold a secret, as variables: other users can read a command line."""
    keys = [key for key in TABLE.keys if key.secret and flags.get(key.field)]
    return {str(TABLE.variable(key)): str(flags[key.field]) for key in keys}
