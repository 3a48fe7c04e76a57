"""The daemon's process: what is opened in which order, who runs, and how it ends (daemon.md)."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import claudemesh
from claudemesh.daemon.bus import Bus, BusEvent
from claudemesh.daemon.core import Core
from claudemesh.daemon.disk import DiskWatch
from claudemesh.daemon.doors import Doors
from claudemesh.daemon.healing import Healing, HealingFiles
from claudemesh.daemon.hooks.manifest import Manifest
from claudemesh.daemon.hooks.runner import Surroundings
from claudemesh.daemon.hooks.service import Hooks
from claudemesh.daemon.housekeeping import Housekeeping
from claudemesh.daemon.identity.host import host_fingerprint
from claudemesh.daemon.identity.keyring import Membership, load_identity, load_membership
from claudemesh.daemon.identity.sync import DirectorySync
from claudemesh.daemon.inbox.opening import Opener
from claudemesh.daemon.inbox.receive import Receiver
from claudemesh.daemon.link import Link, LinkHandlers, Opened
from claudemesh.daemon.metrics import DaemonMetrics
from claudemesh.daemon.opening import (
    keep_lived_clock,
    load_directory,
    load_hooks,
    open_inbox,
    open_lived_clock,
    open_outbox,
    take_lock,
)
from claudemesh.daemon.outbox.accept import Outbox
from claudemesh.daemon.outbox.drain import Drain
from claudemesh.daemon.outbox.request import SendRequest
from claudemesh.daemon.outbox.requeue import Requeue
from claudemesh.daemon.outbox.sealer import Sealer
from claudemesh.daemon.outbox.states import Status
from claudemesh.daemon.outbox.store import Settlement
from claudemesh.daemon.paths import DaemonPaths
from claudemesh.daemon.settings import DaemonSettings, changed, load_settings
from claudemesh.protocol.features import REQUIRED
from claudemesh.protocol.frames import Event
from claudemesh.protocol.ids import UlidFactory
from claudemesh.protocol.keys import Identity
from claudemesh.runtime.clock import Clock, SystemClock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.exits import CONFIGURATION, INTERNAL, OK, ExitWith
from claudemesh.runtime.files import write_atomic
from claudemesh.runtime.logs import get_logger, set_level
from claudemesh.runtime.services import TaskOwner

log = get_logger("daemon")

DRAIN_GRACE_S = 10.0
_MAX_BODY = 4 << 20
_MEMBER_CHANGES = frozenset({"member_added", "member_renamed", "member_revoked"})


class Daemon:
    """One daemon for one mesh: `await start()`, then `await run()` until it ends."""

    def __init__(self, paths: DaemonPaths, settings: DaemonSettings, clock: Clock | None = None) -> None:
        self._paths = paths
        self._settings = settings
        self._clock = clock or SystemClock()
        self._stack = AsyncExitStack()
        self._ended: asyncio.Future[ExitWith | None] | None = None
        self._tasks = TaskOwner(on_crash=self._crashed)
        self.conditions = Conditions(self._clock)
        self.core: Core

    async def start(self) -> None:
        """Open everything and answer on the socket. `ExitWith` says why it cannot; the broker may be away."""
        self._ended = asyncio.get_running_loop().create_future()
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def run(self) -> int:
        """Serve until a signal, `stop_soon`, or a reason to end; returns the exit code."""
        assert self._ended is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop_soon)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        ending = await self._ended
        await self.stop()
        if ending is None:
            return OK
        log.error("daemon_ended", error=ending.error, detail=ending.message, exit_code=ending.code)
        raise ending

    def reload(self) -> None:
        """Take over config.toml and local_token as they are now; a wrong value changes nothing."""
        core = self.core
        core.reloads += 1
        try:
            settings = load_settings(self._paths.config)
            manifest = load_hooks(self._paths.hooks_manifest, settings)
            live, later = changed(self._settings, settings)
            self._housekeeping.use(settings)
            self._doors.apply(settings)
        except ExitWith as error:
            self._housekeeping.use(self._settings)
            core.config_error = error.message
            log.error("reload_refused", error=error.error, detail=error.message)
            return
        self._settings = core.settings = self._disk.settings = settings
        self._disk.look()
        self._hooks.manifest = manifest
        self._link.backoff = self._drain.backoff = settings.backoff
        set_level(settings.log_level)
        core.config_loaded_ms = self._clock.wall_ms()
        core.config_error = None
        core.config_needs_restart = sorted({*core.config_needs_restart, *later})
        log.info("reloaded", changed=live, needs_restart=later)

    def stop_soon(self) -> None:
        """End orderly: accept nothing more, let what is in flight be answered, exit 0."""
        self.end(None)

    async def stop(self) -> None:
        """Close everything in order; what was accepted is on the disk."""
        # Event streams end with the bus; the server would wait for them as for any request.
        self._bus.close()
        await self._doors.close()
        await asyncio.gather(self._drain.finish(DRAIN_GRACE_S), self._hooks.finish(DRAIN_GRACE_S))
        await self._healing.close()
        await self._link.close()
        await self._tasks.stop()
        await self._receiver.close()
        await self._stack.aclose()
        log.info("daemon_stopped")

    async def _start(self) -> None:
        take_lock(self._paths, self._stack)
        self._lived = open_lived_clock(self._paths.lived_clock, self._clock, self._stack)
        membership = load_membership(self._paths.membership)
        identity = load_identity(self._paths.keypair)
        self._directory = load_directory(self._paths.peers)
        self._outbox_store = await open_outbox(self._paths.outbox_db, self._storage_failed, self._stack)
        self._inbox = await open_inbox(self._paths.inbox_db, self._clock, self._storage_failed, self._stack)
        self._new_id = UlidFactory(self._clock.wall_ms, secrets.token_bytes).new
        self._bus = Bus()
        self._stack.callback(self._bus.close)
        self._metrics = DaemonMetrics()
        self._assemble_hooks(load_hooks(self._paths.hooks_manifest, self._settings))
        sealer = Sealer(identity, membership.mesh_id, self._directory, secrets.token_bytes)
        self._connect(membership, identity)
        self._assemble_sending(sealer)
        self._assemble_receiving(membership, identity)
        await self._outbox_store.recover(self._clock.wall_ms(), round(self._settings.max_backoff_ms * 1.25))
        await self._healing.load()
        self.core = self._make_core(membership, identity, sealer)
        await self._serve()

    def _connect(self, membership: Membership, identity: Identity) -> None:
        settings = self._settings
        handlers = LinkHandlers(
            self._link_opened, self._link_down, self._on_result, self._on_deliver, self._on_event
        )
        self._link = Link(
            membership,
            identity,
            settings.backoff,
            handlers,
            instance_id=self._new_id(),
            host_fingerprint=host_fingerprint(),
            require=[*REQUIRED, *(name for name in settings.features_require if name not in REQUIRED)],
            optional=settings.features_optional,
        )
        self._sync = DirectorySync(self._directory, self._link.call, self._tasks, self._clock)

    def _assemble_hooks(self, manifest: Manifest) -> None:
        self._hooks = Hooks(
            self._inbox.jobs,
            Surroundings(self._paths.hooks, self._paths.sock, self._paths.slug),
            self._metrics,
            self._bus,
            self._clock,
            self._new_id,
            lambda request: self._gate.submit(request),
            self._is_sender,
            self._settings.hooks_concurrency,
        )
        self._hooks.manifest = manifest

    def _assemble_sending(self, sealer: Sealer) -> None:
        store, clock = self._outbox_store, self._clock
        self._disk = DiskWatch(
            self._paths.root, self._settings, lambda: store.queued_bytes, self._pressure_high
        )
        self._disk.look()
        self._drain = Drain(store, self._link, clock, self._settings.backoff, self._settled)
        self._healing = Healing(
            store.done,
            self._link,
            HealingFiles(self._paths.topic_subscriptions, self._paths.broker_features),
            self._directory,
            clock=clock,
            lived=self._lived,
            backoff=self._settings.backoff,
            busy=lambda: self._drain.inflight > 0,
            conditions=self.conditions,
            on_crash=self._crashed,
        )
        self._link.readmit, self._drain.may_come_back = self._healing.readmit, self._healing.may_come_back
        self._gate = Outbox(
            store,
            sealer,
            self._directory,
            clock,
            self._new_id,
            self._drain.submit,
            self._sync.after_miss,
            self._disk.refusal,
            self._hooks,
        )

    def _assemble_receiving(self, membership: Membership, identity: Identity) -> None:
        opener = Opener(
            identity, membership.mesh_id, membership.slug, self._new_id, _MAX_BODY, self._hooks.for_message
        )
        self._receiver = Receiver(
            self._inbox,
            opener,
            self._directory,
            self._sync.now,
            self._link,
            self._bus,
            self._clock,
            self._metrics,
            self._hooks.wake,
        )
        self._housekeeping = Housekeeping(
            self._outbox_store,
            self._inbox,
            self._clock,
            self._settings,
            self._expired,
            lambda: keep_lived_clock(self._paths.lived_clock, self._lived),
        )

    def _make_core(self, membership: Membership, identity: Identity, sealer: Sealer) -> Core:
        operator = Requeue(
            self._outbox_store,
            self._gate,
            sealer,
            self._directory,
            self._clock,
            self._new_id,
            self._healing.look_up,
            self._drain.wake,
        )
        return Core(
            membership=membership,
            identity=identity,
            clock=self._clock,
            settings=self._settings,
            directory=self._directory,
            bus=self._bus,
            outbox_store=self._outbox_store,
            inbox=self._inbox,
            gate=self._gate,
            drain=self._drain,
            receiver=self._receiver,
            link=self._link,
            topics=self._healing.topics,
            operator=operator,
            metrics=self._metrics,
            room=lambda: self._disk.room,
            degraded=self._degraded,
            pid=os.getpid(),
        )

    async def _serve(self) -> None:
        self._doors = Doors(self._paths, self.core, self._hooks)
        await self._doors.open()
        write_atomic(self._paths.pid, f"{os.getpid()}\n".encode())
        self._stack.callback(lambda: self._paths.pid.unlink(missing_ok=True))
        schema = f"{self._outbox_store.schema_version}\n".encode()
        write_atomic(self._paths.schema_version, schema, 0o644)
        self._tasks.start(self._drain.run(), "drain")
        self._tasks.start(self._run_link(), "link")
        self._tasks.start(self._hooks.run(), "hooks")
        self._tasks.start(self._housekeeping.run(), "housekeeping")
        self._tasks.start(self._disk.run(), "disk")
        self._hooks.tell("on-startup", {"daemon_version": claudemesh.__version__})
        log.info("daemon_started", mesh=self.core.membership.slug, name=self.core.membership.name)

    async def _run_link(self) -> None:
        try:
            await self._link.run()
        except ExitWith as ending:
            if ending.code == CONFIGURATION:
                reason = {"kind": ending.error, "detail": ending.message}
                self._bus.publish([BusEvent("feature_negotiation_failed", reason)])
            self.end(ending)

    # What comes over the link. None of these waits.

    def _link_opened(self, opened: Opened) -> None:
        features = opened.features
        self._gate.inline_bytes = features.inline_bytes
        try:
            self._housekeeping.broker_reached(features, opened.hello.server_time)
        except ExitWith as ending:
            self.end(ending)
            return
        self.core.clock_offset_ms = self._clock.wall_ms() - opened.hello.server_time
        log.info("link_up", broker_version=opened.broker_version, connection=opened.connection)
        self._bus.publish([BusEvent("daemon_reconnect", {"broker_version": opened.broker_version})])
        self._hooks.tell("on-reconnect", {"broker_version": opened.broker_version})
        self._healing.link_up(opened)
        self._sync.soon()
        self._drain.wake()

    def _link_down(self, reason: str) -> None:
        self._healing.link_down()
        self._housekeeping.broker_lost()
        self._metrics.link_down(reason)
        self._directory.all_offline()
        self._drain.on_link_down()
        self._bus.publish([BusEvent("daemon_disconnect", {"reason": reason})])
        self._hooks.tell("on-disconnect", {"reason": reason})

    def _on_result(self, result: Any) -> None:
        if not self._healing.on_result(result):
            self._drain.on_result(result)

    def _on_deliver(self, connection: int, delivery: Any) -> None:
        self._receiver.handle(connection, delivery)

    def _on_event(self, event: Event) -> None:
        member_id = str(event.data.get("member_id"))
        if event.event in ("peer_join", "peer_leave"):
            self._directory.set_online(member_id, event.event == "peer_join")
            self._bus.publish([BusEvent(event.event, event.data)])
        # A member that is known needs no new list: otherwise each arrival would cost a list per daemon.
        self._healing.on_event(event)
        if event.event in _MEMBER_CHANGES or self._directory.by_id(member_id) is None:
            self._sync.soon()

    def _is_sender(self, request: SendRequest, event: Mapping[str, Any]) -> bool:
        """Whether a send goes to the member that an event is from."""
        target = request.target
        peer = (
            self._directory.by_name(target.name) if target.name else self._directory.by_key(target.ref or "")
        )
        return peer is not None and peer.member_id == event.get("sender_member_id")

    def _settled(self, settlement: Settlement) -> None:
        row = settlement.row
        self._gate.settled(row.client_message_id)
        self._metrics.settled(row.payload, settlement.status, duplicate=settlement.duplicate)
        if settlement.status is Status.DEAD:
            data = {
                "id": row.id,
                "client_message_id": row.client_message_id,
                "reason": settlement.error,
            }
            self._bus.publish([BusEvent("outbox_dead", data)])

    def _expired(self, row_ids: Sequence[str]) -> None:
        for row_id in row_ids:
            self._bus.publish([BusEvent("outbox_dead", {"id": row_id, "reason": "max_age_exceeded"})])

    def _pressure_high(self, found: Mapping[str, float]) -> None:
        self._bus.publish([BusEvent("outbox_pressure_high", found)])

    def _degraded(self) -> list[str]:
        problems = [*self._disk.degraded, *(str(found["code"]) for found in self.conditions.items())]
        if self._drain.disk_full:
            problems.append("disk_full")
        if not self._receiver.storing:
            problems.append("inbox_unavailable")
        return problems

    def _crashed(self, task: str, error: BaseException) -> None:
        self.end(ExitWith(INTERNAL, "internal_error", f"The {task} task failed: {error!r}; see the log."))

    def _storage_failed(self, error: StorageError) -> None:
        self.end(ExitWith(INTERNAL, "storage_broken", f"{error}."))

    def end(self, ending: ExitWith | None) -> None:
        """End orderly, for this reason if there is one; the first one counts."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(ending)
