"""Restart of a daemon: its stop, and the options of its next start."""

from __future__ import annotations

from contextlib import closing, suppress

import orjson

from claudemesh.cli.daemon.control import stop
from claudemesh.client.errors import DaemonNotRunning
from claudemesh.client.local import LocalClient
from claudemesh.client.process import find_process
from claudemesh.home.paths import daemon_paths
from claudemesh.runtime.exits import CONFIGURATION, ExitWith


def stop_to_restart(client: LocalClient) -> bool:
    """Stop a daemon that is to be started again. True: it is a service, and systemd has restarted it."""
    _refuse_ephemeral(client)
    # Imported here: only a restart asks for the unit.
    from claudemesh.cli.service.systemd import unit_of

    try:
        process = find_process(client.path)
    except OSError:
        return False
    if process is not None:
        with closing(process):
            unit = unit_of(process.pid)
        if unit is not None:
            systemd, name = unit
            systemd.start(name)
            return True
        _check_settings(client.slug)
    with suppress(DaemonNotRunning):
        stop(client, to_restart=True)
    return False


def _check_settings(slug: str) -> None:
    """Refuse to stop a daemon that would not start again."""
    # Imported here: only a restart reads the settings.
    from claudemesh.daemon.settings import load_settings_in_fleet

    paths = daemon_paths(slug)
    try:
        load_settings_in_fleet(paths.home, paths.config)
    except ExitWith as error:
        text = f"{error.message} The daemon was not stopped."
        raise ExitWith(error.code, error.error, text, next=error.next) from error


def _refuse_ephemeral(client: LocalClient) -> None:
    """Refuse to end an ephemeral member. Its keys and messages would go with its daemon."""
    # Imported here: only a restart reads the daemon's files.
    from claudemesh.home.membership import load_membership

    path = client.path.with_name("membership.json")
    if path.exists() and load_membership(path).ephemeral:
        raise ExitWith(
            CONFIGURATION,
            "ephemeral_member",
            f"The member of mesh {client.slug} is ephemeral and ends with its daemon, so a restart cannot "
            "continue it. Stop it, and start it again with an invite. Nothing was changed.",
            next="claudemesh daemon down",
        )


def start_options(slug: str) -> list[str]:
    """Return the options of the last start that the next one has too."""
    return ["--with-broker"] if was_with_broker(slug) else []


def was_with_broker(slug: str) -> bool:
    """Whether the last start had --with-broker."""
    # Imported here: only this command reads the daemon's files.
    from claudemesh.runtime.files import UnsafeFile, read_own

    try:
        options = orjson.loads(read_own(daemon_paths(slug).start_options))
    except (OSError, UnsafeFile, orjson.JSONDecodeError):
        return False
    return isinstance(options, dict) and options.get("with_broker") is True
