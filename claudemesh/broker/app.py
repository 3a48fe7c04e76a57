"""The broker process: its parts are made and started in order, and stopped in reverse order."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import orjson
from msgspec import Struct

from claudemesh.broker.addresses import addresses_of
from claudemesh.broker.background import start_parts, within
from claudemesh.broker.blobs.service import Blobs
from claudemesh.broker.challenge import ChallengeKeys
from claudemesh.broker.cluster.cluster import Cluster
from claudemesh.broker.cluster.signals import Signals
from claudemesh.broker.cluster.sweep import Sweep
from claudemesh.broker.connections.clone_warnings import CloneWarnings
from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.context import Context
from claudemesh.broker.degraded import Degraded
from claudemesh.broker.directory.feed import Feed
from claudemesh.broker.directory.profiles import Profiles
from claudemesh.broker.environment import Environment
from claudemesh.broker.http.guard import guardroom, with_descriptors
from claudemesh.broker.http.routes import build_app
from claudemesh.broker.key_news import KeyNews
from claudemesh.broker.limiter.base import Limiter
from claudemesh.broker.limiter.memory import MemoryLimiter
from claudemesh.broker.messages.accept import Acceptor, Outputs
from claudemesh.broker.messages.publishing import Publisher
from claudemesh.broker.messages.quotas import Quotas
from claudemesh.broker.messages.work_queues import WorkQueues
from claudemesh.broker.metrics import BrokerMetrics
from claudemesh.broker.presence.announcer import Announcer
from claudemesh.broker.presence.leases import Leases
from claudemesh.broker.rotation_pace import RotationPace
from claudemesh.broker.settings import LISTEN_SETTINGS, BrokerSettings, readable
from claudemesh.broker.startup import admin_token_of, cannot_open, kept_id, make_store, take_data_dir
from claudemesh.broker.state import BrokerState
from claudemesh.broker.store.protocol import Store
from claudemesh.broker.store.sqlite import SqliteStore
from claudemesh.broker.store.types import Ack
from claudemesh.broker.tls import own_certificate, server_tls
from claudemesh.broker.tracing import tracing_of
from claudemesh.broker.upkeep.audit import Audit
from claudemesh.broker.upkeep.jobs import Jobs
from claudemesh.broker.upkeep.pulse import Pulse
from claudemesh.broker.upkeep.restore_watch import HighWater
from claudemesh.broker.upkeep.timekeeper import Timekeeper
from claudemesh.broker.upkeep.topic_keys import KeyUpkeep
from claudemesh.broker.ws.listener import Listener
from claudemesh.protocol.ids import UlidFactory
from claudemesh.protocol.wire import broker_frame_bytes
from claudemesh.runtime.batching import Batcher
from claudemesh.runtime.clock import Clock, SystemClock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import SchemaTooNew, StorageError
from claudemesh.runtime.exits import CONFIGURATION, INTERNAL, ExitWith
from claudemesh.runtime.extras import require_extra
from claudemesh.runtime.files import (
    remove,
    write_atomic,
)
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.notify import ServiceManager
from claudemesh.runtime.services import TaskOwner
from claudemesh.runtime.sidefiles import SideFiles
from claudemesh.runtime.sqlite_upkeep import Upkeep
from claudemesh.runtime.urls import bracketed, is_loopback
from claudemesh.runtime.web.heads import Deadlines
from claudemesh.runtime.web.server import HttpServer
from claudemesh.runtime.web.sockets import bind_tcp

log = get_logger("broker")

# Bound of a stop for the answers to sends that were taken.
_ANSWERS_S = 10.0


class _Running(Struct, frozen=True):
    url: str
    context: Context
    time: Timekeeper
    listener: Listener
    stack: AsyncExitStack


class Broker:
    """A broker: one data dir, one process, from `start` to `stop`; the database lies in the dir or elsewhere.

    `start` raises `ExitWith`, which says what to do, when the data dir is in use or unsafe, the
    database is not healthy or not to be trusted, or the address is taken.
    """

    def __init__(
        self, settings: BrokerSettings, clock: Clock | None = None, manager: ServiceManager | None = None
    ) -> None:
        """`manager` is notified."""
        self.settings = settings
        self._manager = manager or ServiceManager()
        self.clock: Clock = clock or SystemClock()
        self._ending = asyncio.Event()
        self._failure: ExitWith | None = None
        self._conditions = Conditions(self.clock, log)
        self._files = SideFiles(settings.data_dir, self._conditions)
        self._running: _Running | None = None

    @property
    def url(self) -> str:
        """The address to dial, `ws://host:port`; only while it runs."""
        return self._alive().url

    @property
    def admin_token(self) -> str:
        """The bearer token of the admin API; only while it runs."""
        return self._alive().context.admin_token.decode()

    @property
    def context(self) -> Context:
        """The parts that routes and connections work with; only while it runs."""
        return self._alive().context

    @property
    def time(self) -> Timekeeper:
        """The clocks; only while it runs."""
        return self._alive().time

    async def start(self) -> None:
        """Return once connections are accepted and `broker.json` tells where."""
        try:
            await self._start()
        except StorageError as error:
            raise cannot_open(self.settings, error) from error
        log.info("broker_started", url=self.url, data_dir=str(self.settings.data_dir))

    async def _start(self) -> None:
        async with AsyncExitStack() as stack:
            self.settings = with_descriptors(self.settings)
            take_data_dir(self.settings.data_dir, stack)
            metrics = BrokerMetrics()
            degraded = Degraded(self._conditions, self.clock, metrics, self.settings.limits.answering_s)
            store = await self._open_store(degraded, stack)
            time = await self._keep_time(store, stack)
            context = await self._assemble(store, time, metrics, degraded)
            await start_parts(context, stack)
            listener = Listener(context)
            url = await self._serve(context, listener, stack)
            self._running = _Running(url, context, time, listener, stack.pop_all())

    async def stop(self, drain: bool = True) -> None:
        """Stop. With `drain` what is in flight is finished first, in bounded time.

        Sends are answered, nothing more is delivered, and connections close with 4006 when what was delivered
        is acknowledged.
        """
        running, self._running = self._running, None
        if running is None:
            return
        context = running.context
        context.state.draining = True
        context.queues.pause()
        if drain:
            await within(_ANSWERS_S, context.acceptor.close)
            await running.listener.drain(self.settings.limits.acks_s)
        await running.stack.aclose()
        self._ending.set()
        log.info("broker_stopped")

    def stop_soon(self) -> None:
        """Let `run` stop and return."""
        self._ending.set()

    async def run(self) -> None:
        """Serve until `stop` or `stop_soon`. `ExitWith`: the disk or a part of the broker failed."""
        if self._running is None:
            await self.start()
        tasks = TaskOwner()
        tasks.start(self._manager.run(self._line), "service_manager")
        self._manager.ready()
        await self._ending.wait()
        self._manager.stopping()
        await self.stop(drain=self._failure is None)
        await tasks.stop()
        if self._failure is not None:
            raise self._failure

    def _line(self) -> str:
        """Return the state in one line, for a service manager."""
        if self._running is None:
            return "stopping"
        codes = ", ".join(self._conditions.codes())
        state = f"{len(self._running.context.hub)} connections at {self._running.url}"
        return f"{state}, degraded: {codes}" if codes else state

    def _fail(self, error: str, message: str) -> None:
        """Stop after a failure: accepted messages are on the disk, and the next start continues."""
        if self._failure is None:
            self._failure = ExitWith(INTERNAL, error, message)
            log.error("broker_failed", error=error, detail=message)
        self._ending.set()

    def _crashed(self, task: str, error: BaseException) -> None:
        self._fail("internal_error", f"The {task} task failed: {error!r}; see the log.")

    def _alive(self) -> _Running:
        if self._running is None:
            raise RuntimeError("the broker is not running")
        return self._running

    async def _open_store(self, degraded: Degraded, stack: AsyncExitStack) -> Store:
        store = make_store(self.settings, lambda error: self._fail("storage_broken", f"{error}."))
        try:
            await store.open()
        except SchemaTooNew as error:
            raise ExitWith(CONFIGURATION, "schema_too_new", str(error)) from error
        except StorageError as error:
            raise cannot_open(self.settings, error) from error
        stack.push_async_callback(store.close)
        if isinstance(store, SqliteStore):
            await self._watch_for_restore(store, degraded, stack)
        return store

    async def _watch_for_restore(self, store: SqliteStore, degraded: Degraded, stack: AsyncExitStack) -> None:
        mark = HighWater(self.settings.data_dir / "high_water", store, self._conditions)
        await mark.check()
        tasks = TaskOwner(self._crashed)
        tasks.start(mark.run(degraded), "high_water")
        upkeep = Upkeep(store.database, self._conditions)
        tasks.start(upkeep.run(), "upkeep")
        tasks.start(upkeep.check(), "database_check")
        stack.push_async_callback(mark.try_to_note)
        stack.push_async_callback(tasks.stop)

    async def _keep_time(self, store: Store, stack: AsyncExitStack) -> Timekeeper:
        time = Timekeeper(store, self.clock, self._crashed)
        await time.start()
        stack.push_async_callback(time.stop)
        return time

    def _environment(
        self, time: Timekeeper, new_id: str, metrics: BrokerMetrics, degraded: Degraded
    ) -> Environment:
        return Environment(
            broker_id=kept_id(self.settings.data_dir, new_id),
            limits=self.settings.limits,
            clock=time.wall,
            lived=time.lived,
            metrics=metrics,
            degraded=degraded,
            on_crash=self._crashed,
            tracing=tracing_of(self.settings.otel_endpoint, time.wall),
        )

    async def _assemble(
        self, store: Store, time: Timekeeper, metrics: BrokerMetrics, degraded: Degraded
    ) -> Context:
        settings, mint = self.settings, UlidFactory(time.wall.wall_ms, os.urandom).new
        env = self._environment(time, mint(), metrics, degraded)
        state, hub = BrokerState(await store.store_epoch()), Hub(settings.limits.connections_per_member)
        signals, acks = Signals(store.cluster, env), _acknowledging(store, env)
        # The announcer comes before the cluster: it notes a replaced connection before that is closed.
        announcer = Announcer(hub, signals, store.cluster, env)
        cluster, leases = Cluster(hub, signals), Leases(store.presence, store.cluster, hub, env)
        queues = WorkQueues(store.queues, hub, acks, signals, env)
        keys = KeyNews(store.topic_keys, hub, announcer, cluster, signals, env)
        upkeep = KeyUpkeep(store, keys, time.lived, settings.topic_key_max_age_days)
        feed, audit = Feed(store.directory, hub, signals, env), Audit(store.audit, env)
        limiter, admin_token = _limiter(settings, env), admin_token_of(settings)
        steps = (leases.sweep, announcer.read, queues.sweep, feed.sweep)
        sweep = Sweep(
            store.cluster, hub=hub, signals=signals, state=state, wall=time.wall, env=env, steps=steps
        )
        return Context(
            settings=settings,
            addresses=addresses_of(settings),
            env=env,
            store=store,
            hub=hub,
            clone_warnings=CloneWarnings(env.clock),
            signals=signals,
            limiter=limiter,
            acceptor=Acceptor(
                messages=store.messages,
                limiter=limiter,
                quotas=Quotas(store.usage, env),
                outputs=Outputs(hub=hub, publisher=Publisher(hub, signals, env), queues=queues, state=state),
                env=env,
                mint=mint,
                inline_bytes=settings.inline_bytes,
            ),
            acks=acks,
            leases=leases,
            announcer=announcer,
            cluster=cluster,
            sweep=sweep,
            feed=feed,
            profiles=Profiles(store.members, feed, announcer, env),
            queues=queues,
            keys=keys,
            rotation_pace=RotationPace(env.clock, settings.limits.key_rotations_a_day),
            blobs=Blobs(store, settings, env),
            jobs=Jobs(store, cluster=cluster, feed=feed, audit=audit, keys=upkeep, time=time, env=env),
            audit=audit,
            pulse=Pulse(store, env),
            mint=mint,
            state=state,
            challenge=ChallengeKeys(admin_token),
            admin_token=admin_token,
        )

    async def _serve(self, context: Context, listener: Listener, stack: AsyncExitStack) -> str:
        host, port = self.settings.address
        socket = bind_tcp(host, port, LISTEN_SETTINGS)
        stack.callback(socket.close)
        server = HttpServer(
            build_app(context, listener),
            socket,
            room=guardroom(context),
            ws_max_size=broker_frame_bytes(self.settings.inline_bytes),
            deadlines=Deadlines(self.settings.limits.head_s, self.settings.limits.body_s),
            tls=_tls(self.settings),
            on_crash=self._crashed,
            on_shortage=partial(self._conditions.set, "too_many_open_files"),
        )
        await server.start()
        stack.push_async_callback(server.stop)
        stack.push_async_callback(listener.close_all)
        # First of the three: members that are told to go come back at once.
        stack.callback(server.close_listener)
        tasks = TaskOwner(self._crashed)
        tasks.start(listener.watch(), "slow_consumers")
        tasks.start(self._files.run(), "side_files")
        stack.push_async_callback(tasks.stop)
        if context.env.tracing is not None:
            tasks.start(context.env.tracing.exporter.run(), "tracing")
            stack.push_async_callback(context.env.tracing.exporter.close)
        scheme = "ws" if self.settings.tls_cert is None else "wss"
        url = f"{scheme}://{bracketed(host)}:{socket.getsockname()[1]}"
        if scheme == "ws" and not is_loopback(host):
            log.warning("listening_without_tls", listen=self.settings.listen)
        path = self.settings.data_dir / "broker.json"
        found = orjson.dumps(_account(self.settings, url))
        self._files.write(path.name, lambda: write_atomic(path, found))
        stack.callback(remove, path)
        return url


def _acknowledging(store: Store, env: Environment) -> Batcher[Ack, None]:
    async def acknowledge(acks: Sequence[Ack]) -> Sequence[None]:
        env.metrics.acknowledged.inc(await store.messages.acknowledge(acks))
        return [None] * len(acks)

    work = acknowledge if env.tracing is None else env.tracing.batch("claudemesh acknowledge", acknowledge)
    return Batcher(work, owner=lambda ack: ack.member_id)


def _limiter(settings: BrokerSettings, env: Environment) -> Limiter:
    if settings.redis_url is None:
        return MemoryLimiter(env.clock)
    require_extra("redis", "redis", "redis_url")
    # Imported here: the client is large, and a broker that stands alone needs none.
    from claudemesh.broker.limiter.redis import RedisLimiter

    return RedisLimiter(settings.redis_url, env.clock, env.metrics, settings.limits.redis_s)


def _account(settings: BrokerSettings, url: str) -> dict[str, Any]:
    """Return the content of `broker.json`, by which commands on this host find and trust this broker."""
    return {
        "url": url,
        "public_urls": settings.public_url,
        "pid": os.getpid(),
        "certificate": None if settings.tls_cert is None else own_certificate(settings.tls_cert),
        "settings": readable(settings),
    }


def _tls(settings: BrokerSettings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    try:
        return server_tls(settings.tls_cert, settings.tls_key)
    except ValueError as error:
        raise ExitWith(CONFIGURATION, "invalid_tls", str(error)) from error
