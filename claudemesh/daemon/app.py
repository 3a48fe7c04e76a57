"""Daemon process: start, run, reload and stop (docs/spec/daemon.md, Starting, stopping, failing)."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from functools import partial

import claudemesh
from claudemesh.daemon import assembly, startup
from claudemesh.daemon.address import BrokerAddress
from claudemesh.daemon.api import ApiRoutes
from claudemesh.daemon.api_routes import make_routes
from claudemesh.daemon.bus import Bus
from claudemesh.daemon.identity.host_check import check_host
from claudemesh.daemon.listeners import ApiListeners
from claudemesh.daemon.metrics import DaemonMetrics
from claudemesh.daemon.parts import Base, Parts
from claudemesh.daemon.reload import Reload
from claudemesh.daemon.settings import DaemonSettings, load_settings_in_fleet
from claudemesh.daemon.status import HealthReport
from claudemesh.daemon.tracing import tracing_of
from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import change_address, load_membership
from claudemesh.home.paths import DaemonPaths
from claudemesh.runtime.clock import Clock, SystemClock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.exits import INTERNAL, OK, ExitWith
from claudemesh.runtime.files import remove
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.notify import ServiceManager
from claudemesh.runtime.oserrors import require_descriptors
from claudemesh.runtime.services import TaskOwner
from claudemesh.runtime.sidefiles import SideFiles

log = get_logger("daemon")

DRAIN_GRACE_S = 10.0
RECEIVE_GRACE_S = 5.0
_WAITERS_S = 0.5
_DESCRIPTORS = 24


class Daemon:
    """One daemon for one mesh: `await start()`, then `await run()` until it ends."""

    def __init__(
        self,
        paths: DaemonPaths,
        settings: DaemonSettings,
        clock: Clock | None = None,
        *,
        with_broker: bool = False,
        manager: ServiceManager | None = None,
    ) -> None:
        """`with_broker`: this process runs a broker too, and health says so. `manager` is notified."""
        self._paths = paths
        self._with_broker = with_broker
        self._settings = settings
        self._clock = clock or SystemClock()
        self._manager = manager or ServiceManager()
        self._stack = AsyncExitStack()
        self._tasks = TaskOwner(on_crash=self._crashed)
        self._ended: asyncio.Future[ExitWith | None] | None = None
        self._listeners: ApiListeners
        self._reload: Reload
        self.parts: Parts
        # The parts that the routes of the local API use.
        self.routes: ApiRoutes

    @property
    def health(self) -> HealthReport:
        """The report of `/v1/health`."""
        return self.parts.health

    async def start(self) -> None:
        """Open files and databases, and listen on the socket. Raise `ExitWith` with the cause of a failure.
        The broker need not be reachable."""
        self._ended = asyncio.get_running_loop().create_future()
        try:
            startup.take_lock(self._paths, self._stack)
            startup.finish_remint(self._paths)
            startup.check_membership(self._paths)
            base = self._base()
            self.parts = assembly.assemble(base, await assembly.open_stores(base))
            self.routes = make_routes(self.parts)
            await assembly.recover(self.parts)
            await self._serve()
        except BaseException as error:
            await self._tasks.stop()
            await self._stack.aclose()
            if isinstance(error, StorageError):
                raise startup.cannot_open(self._paths.root, error) from error
            raise

    async def run(self) -> int:
        """Serve until a signal, `stop_soon`, or an error that ends the daemon; return the exit code."""
        assert self._ended is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop_soon)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        self._manager.ready()
        ending = await self._ended
        self._manager.stopping()
        # A second signal ends the process at once: accepted sends are on disk.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        await self.stop()
        if ending is None:
            return OK
        raise ending

    def reload(self) -> None:
        """Reload config.toml, hooks.toml and local_token. A wrong value changes nothing."""
        with self._manager.reloading():
            self._reload.run()

    def want_name(self, name: str) -> None:
        """Ask the broker for another name of this member."""
        self.parts.acts.want_name(name)
        if self.health.connected:
            self.parts.acts.link_up()

    def stop_soon(self) -> None:
        """Stop in order: accept no more sends, wait for the answers of rows in flight, exit 0."""
        self.end(None)

    def end(self, ending: ExitWith | None) -> None:
        """Stop in order, with the exit code of `ending` if there is one. The first call decides."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(ending)

    async def stop(self) -> None:
        """Close all parts in order. Accepted sends are on disk."""
        # Listeners first: a client whose event stream ends connects again at once.
        self._listeners.close_listeners()
        self.parts.base.bus.close()
        for waiting in (self.parts.stores.callers, self.parts.stores.watchers):
            asyncio.get_running_loop().call_later(_WAITERS_S, waiting.release_all)
        await self._listeners.close()
        await assembly.finish(self.parts, receive_s=RECEIVE_GRACE_S, drain_s=DRAIN_GRACE_S)
        await self._stack.aclose()
        log.info("daemon_stopped")

    def _base(self) -> Base:
        conditions, bus = Conditions(self._clock), Bus()
        files, path = SideFiles(self._paths.root, conditions), self._paths.membership
        membership = load_membership(path)
        metrics = DaemonMetrics(conditions)
        host = check_host(self._paths, self._settings, conditions, metrics.clone_suspected)
        self._stack.callback(bus.close)
        new_id = assembly.make_new_id(self._clock)
        tracing = tracing_of(self._settings.otel_endpoint, membership.slug, self._clock, new_id)
        if tracing is not None:
            self._stack.push_async_callback(tracing.exporter.close)
        return Base(
            paths=self._paths,
            settings=self._settings,
            with_broker=self._with_broker,
            membership=membership,
            address=BrokerAddress(
                membership.broker_url,
                self._paths.broker_ca,
                moved_at_ms=membership.moved_at_ms,
                keep=lambda move: files.write(path.name, lambda: change_address(path, move.url, move.at_ms)),
            ),
            host_fingerprint=host,
            keyring=Keyring.load_all(self._paths.keypair, self._clock.wall_ms()),
            clock=self._clock,
            conditions=conditions,
            files=files,
            tasks=self._tasks,
            stack=self._stack,
            backoff=self._settings.backoff,
            bus=bus,
            metrics=metrics,
            tracing=tracing,
            new_id=new_id,
            on_crash=self._crashed,
            on_storage_broken=self._storage_broken,
            end=self.end,
            reload=self.reload,
        )

    async def _serve(self) -> None:
        require_descriptors(_DESCRIPTORS)  # without them it would run and answer no request
        parts, paths, hooks = self.parts, self._paths, self.parts.sending.hooks
        conditions, files = parts.base.conditions, parts.base.files
        served = (paths, self.routes, parts.config, parts.base.metrics, parts.sending.hook_runs)
        self._listeners = ApiListeners(*served, files.write, conditions, parts.console)
        await self._listeners.open()
        hooks_file = startup.HooksFile(paths.hooks_manifest, parts.sending.hook_runs)
        own = (parts.housekeeping, parts.stores.monitor, parts.broker.link, parts.session_news)
        reloaded = (*own, self._listeners, hooks_file)
        load = partial(load_settings_in_fleet, paths.home)
        self._reload = Reload(paths.config, parts.config, self._clock, conditions, reloaded, load)
        files.write_number(paths.pid, os.getpid())
        self._stack.callback(lambda: remove(paths.pid))
        files.write_number(paths.schema_version, parts.stores.outbox.schema_version)
        assembly.start_tasks(parts)
        self._tasks.start(self._listeners.run(), "listeners")
        self._tasks.start(self._manager.run(parts.health.line), "service_manager")
        hooks.tell("on-startup", {"daemon_version": claudemesh.__version__})
        membership = parts.base.membership
        log.info("daemon_started", mesh=membership.slug, name=membership.name)

    def _crashed(self, task: str, error: BaseException) -> None:
        self.end(ExitWith(INTERNAL, "internal_error", f"The {task} task failed: {error!r}; see the log."))

    def _storage_broken(self, error: StorageError) -> None:
        self.end(ExitWith(INTERNAL, "storage_broken", f"{error}."))
