"""The process of a daemon, alone or with an embedded broker: the only module that imports both."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson

from claudemesh.cli.options import default_name
from claudemesh.cli.streams import discard_stderr
from claudemesh.client.broker import BrokerClient
from claudemesh.client.join import create_mesh
from claudemesh.client.own_broker import OwnBroker
from claudemesh.daemon.app import DRAIN_GRACE_S, Daemon
from claudemesh.daemon.settings import load_settings_in_fleet
from claudemesh.home.environment import detect_environment
from claudemesh.home.membership import Membership, load_membership, save_membership
from claudemesh.home.paths import DaemonPaths, daemon_paths
from claudemesh.home.private_home import PrivateHome
from claudemesh.runtime.collecting import settle
from claudemesh.runtime.event_loop import run as run_loop
from claudemesh.runtime.exits import CONFIGURATION, INTERNAL, ExitWith
from claudemesh.runtime.files import write_atomic
from claudemesh.runtime.hardening import protect_memory
from claudemesh.runtime.logs import get_logger, set_level, setup_logging
from claudemesh.runtime.notify import ServiceManager
from claudemesh.runtime.oserrors import cannot
from claudemesh.runtime.services import TaskOwner
from claudemesh.runtime.urls import audience_of, host_port, is_address, is_loopback, split_host_port

if TYPE_CHECKING:
    from claudemesh.broker.app import Broker
    from claudemesh.broker.settings import BrokerSettings

log = get_logger("daemon")


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Bounds of a daemon's life besides signals.

    An ephemeral member's daemon stops by itself shortly before `ttl_s` seconds are over. With `with_launcher`
    it stops when standard input ends: that is a pipe of the process that has started it.
    """

    ttl_s: int | None = None
    with_launcher: bool = False

    def begin(self, stop: Callable[[], None]) -> None:
        """Arrange the calls of `stop` in the running event loop."""
        loop = asyncio.get_running_loop()
        if self.ttl_s is not None:
            loop.call_later(max(self.ttl_s - DRAIN_GRACE_S, self.ttl_s / 2), stop)
        if self.with_launcher:
            loop.add_reader(sys.stdin.fileno(), self._read, stop)

    def _read(self, stop: Callable[[], None]) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            stop()


def run_daemon(
    slug: str,
    *,
    with_broker: bool,
    name: str | None,
    lifetime: Lifetime = Lifetime(),
    warning: str | None = None,
) -> int:
    """Run until stopped, and return the exit code. `ExitWith` is logged, then raised for the terminal."""
    os.umask(0o077)
    protect_memory()
    log_file = os.environ.pop("CLAUDEMESH_LOG_FILE", None)
    setup_logging("info", Path(log_file) if log_file else None)
    manager = ServiceManager.of(os.environ)
    if warning is not None:
        log.warning(warning, mesh=slug, environment=detect_environment(os.environ))
    try:
        return run_loop(
            partial(_run, slug, with_broker, name, manager, lifetime, in_background=bool(log_file))
        )
    except (ExitWith, OSError) as error:
        ending = error if isinstance(error, ExitWith) else cannot("use", error)
        log.error("daemon_ended", error=ending.error, detail=ending.message, exit_code=ending.code)
        raise ending from error
    finally:
        # Python would wait for a second signal while it shuts down.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        home = PrivateHome.of(daemon_paths(slug).home)
        if home is not None:
            home.close()
        with suppress(OSError):
            sys.stderr.flush()


async def _run(
    slug: str,
    with_broker: bool,
    name: str | None,
    manager: ServiceManager,
    lifetime: Lifetime,
    *,
    in_background: bool,
) -> int:
    async with AsyncExitStack() as stack:
        broker = await _start_broker(slug, name, stack) if with_broker else None
        paths = daemon_paths(slug)
        settings = load_settings_in_fleet(paths.home, paths.config)
        set_level(settings.log_level)
        daemon = Daemon(paths, settings, with_broker=with_broker, manager=manager)
        await daemon.start()
        if name is not None:
            daemon.want_name(name)
        settle()
        if in_background:
            discard_stderr()
        lifetime.begin(daemon.stop_soon)
        _note_options(paths, with_broker)
        if broker is not None:
            tasks = TaskOwner(on_crash=lambda _, error: daemon.end(_ending(error)))
            tasks.start(broker.run(), "broker")
            stack.push_async_callback(tasks.stop)
        return await daemon.run()


def _note_options(paths: DaemonPaths, with_broker: bool) -> None:
    """Write the options of this start to a file, for `daemon restart` after a stop or a crash."""
    try:
        write_atomic(paths.start_options, orjson.dumps({"with_broker": with_broker}))
    except OSError as error:
        log.warning("start_options_not_kept", file=str(paths.start_options), error=str(error))


def _ending(error: BaseException) -> ExitWith:
    return error if isinstance(error, ExitWith) else ExitWith(INTERNAL, "internal_error", repr(error))


async def _start_broker(slug: str, name: str | None, stack: AsyncExitStack) -> Broker:
    """Start the embedded broker at the address of the membership; without a membership, create the mesh."""
    from claudemesh.broker.app import Broker

    path = daemon_paths(slug).membership
    known = load_membership(path) if path.exists() else None
    broker = Broker(_broker_settings(known))
    await broker.start()
    stack.push_async_callback(broker.stop)
    url = OwnBroker(broker.settings.data_dir, broker.url, broker.settings.public_url, os.getpid()).member_url
    if known is None:
        client = BrokerClient(url, insecure=True)
        await asyncio.to_thread(create_mesh, client, broker.admin_token, slug, name or default_name())
        log.info("mesh_created", mesh=slug, broker_url=url)
    elif known.broker_url not in broker.settings.public_url and _port_of(known.broker_url) != _port_of(url):
        save_membership(path, replace(known, broker_url=url))
        log.info("broker_address_changed", old=known.broker_url, new=url)
    return broker


def _broker_settings(known: Membership | None) -> BrokerSettings:
    """Return the settings of the environment and broker.toml; they may lack an address to listen at.

    The broker then listens where the membership dials. `ExitWith` 78 when that is another machine.
    """
    from claudemesh.broker.settings import load_settings as load_broker_settings
    from claudemesh.broker.settings import read_settings
    from claudemesh.runtime.settings.merge import Source

    settings = load_broker_settings({}, os.environ)
    if known is None:
        return settings
    if known.broker_url in settings.public_url:
        return settings
    parts = urlsplit(known.broker_url)
    host = parts.hostname or ""
    if parts.scheme != "ws" or not is_loopback(host):
        raise ExitWith(
            CONFIGURATION,
            "broker_elsewhere",
            f"The broker of this mesh is {known.broker_url}, which is not on this machine. Start the daemon "
            "without --with-broker.",
        )
    origin = read_settings({}, os.environ).given["listen"].origin
    if origin.source is not Source.DEFAULT and settings.address[1] != 0:
        return settings
    return replace(settings, listen=host_port(host if is_address(host) else "127.0.0.1", parts.port or 80))


def _port_of(url: str) -> str:
    return split_host_port(audience_of(url))[1]
