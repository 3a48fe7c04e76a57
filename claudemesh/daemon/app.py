"""Daemon process: parts, start, run and stop (docs/spec/daemon.md, Starting, stopping, failing)."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from contextlib import AsyncExitStack
from functools import partial

import claudemesh
from claudemesh.daemon import api, startup
from claudemesh.daemon.broker_session import BrokerSession, SessionParts
from claudemesh.daemon.bus import Bus
from claudemesh.daemon.calls import WrongReplies
from claudemesh.daemon.hooks.runner import HookPlaces
from claudemesh.daemon.hooks.senders import is_sender
from claudemesh.daemon.hooks.service import Hooks
from claudemesh.daemon.housekeeping import Housekeeping
from claudemesh.daemon.identity.clones import CloneWatch
from claudemesh.daemon.identity.presence import Presence
from claudemesh.daemon.identity.sync import DirectorySync
from claudemesh.daemon.inbox.receive import Receiver
from claudemesh.daemon.inbox.unsealer import Unsealer
from claudemesh.daemon.inbox.verify import Verifier
from claudemesh.daemon.link.link import Link
from claudemesh.daemon.listeners import ApiListeners
from claudemesh.daemon.live_config import LiveConfig
from claudemesh.daemon.metrics import DaemonMetrics
from claudemesh.daemon.notices import Notices
from claudemesh.daemon.outbox.age import BrokerTime, OutboxClocks
from claudemesh.daemon.outbox.destinations import Destinations
from claudemesh.daemon.outbox.drain import Drain
from claudemesh.daemon.outbox.recovery import OutboxRecovery
from claudemesh.daemon.outbox.sealer import Sealer
from claudemesh.daemon.outbox.submit import Submitter
from claudemesh.daemon.reload import Reload
from claudemesh.daemon.restore.reconcile import Reconciler, ReconcilerFiles
from claudemesh.daemon.settings import DaemonSettings
from claudemesh.daemon.status import HealthReport, MetricsPage
from claudemesh.daemon.storage_monitor import StorageMonitor
from claudemesh.daemon.topics.known import KnownTopics
from claudemesh.home.host_id import host_fingerprint
from claudemesh.home.keyring import Keyring
from claudemesh.home.membership import Membership, load_membership
from claudemesh.home.paths import DaemonPaths
from claudemesh.protocol.ids import UlidFactory
from claudemesh.runtime.clock import Clock, SystemClock
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.errors import StorageError
from claudemesh.runtime.exits import INTERNAL, OK, ExitWith
from claudemesh.runtime.files import remove
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.oserrors import require_descriptors
from claudemesh.runtime.services import TaskOwner

log = get_logger("daemon")

DRAIN_GRACE_S = 10.0
RECEIVE_GRACE_S = 5.0
_WAITERS_S = 0.5
_DESCRIPTORS = 24
_MAX_BODY = 4 << 20


class Daemon:
    """One daemon for one mesh: `await start()`, then `await run()` until it ends."""

    def __init__(self, paths: DaemonPaths, settings: DaemonSettings, clock: Clock | None = None) -> None:
        self._paths = paths
        self._settings = settings
        # One for all that wait for the broker; a reload changes it in place.
        self._backoff = settings.backoff
        self._clock = clock or SystemClock()
        self._stack = AsyncExitStack()
        self._ended: asyncio.Future[ExitWith | None] | None = None
        self._tasks = TaskOwner(on_crash=self._crashed)
        self.conditions = Conditions(self._clock)
        self.routes: api.ApiRoutes
        self.health: HealthReport

    async def start(self) -> None:
        """Open everything and answer on the socket. `ExitWith` says why it cannot; the broker may be away."""
        self._ended = asyncio.get_running_loop().create_future()
        try:
            await self._start()
        except BaseException as error:
            await self._tasks.stop()
            await self._stack.aclose()
            if isinstance(error, StorageError):
                raise startup.cannot_open(self._paths.root, error) from error
            raise

    async def run(self) -> int:
        """Serve until a signal, `stop_soon`, or a reason to end; returns the exit code."""
        assert self._ended is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop_soon)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        ending = await self._ended
        # A second signal ends the process at once: what was accepted is on the disk.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        await self.stop()
        if ending is None:
            return OK
        raise ending

    def reload(self) -> None:
        """Take over config.toml and local_token as they are now; a wrong value changes nothing."""
        self._reload.run()

    def stop_soon(self) -> None:
        """End orderly: accept nothing more, let what is in flight be answered, exit 0."""
        self.end(None)

    async def stop(self) -> None:
        """Close everything in order; what was accepted is on the disk."""
        # Listeners first: a client whose event stream ends comes back at once.
        self._listeners.close_listeners()
        self._bus.close()
        asyncio.get_running_loop().call_later(_WAITERS_S, self._submitter.release_waiting)
        await self._listeners.close()
        # Acknowledgements leave before the link closes, else a work queue gives stored messages to others.
        await asyncio.gather(
            self._receiver.finish(RECEIVE_GRACE_S),
            self._drain.finish(DRAIN_GRACE_S),
            self._hooks.finish(DRAIN_GRACE_S),
        )
        await self._reconciler.close()
        await self._link.close()
        await self._tasks.stop()
        await self._receiver.close()
        await self._stack.aclose()
        log.info("daemon_stopped")

    async def _start(self) -> None:
        startup.take_lock(self._paths, self._stack)
        self._lived = startup.open_lived_clock(self._paths.lived_clock, self._clock, self._stack)
        membership = load_membership(self._paths.membership)
        keyring = Keyring.load(self._paths.keypair)
        self._directory = startup.load_directory(self._paths.peers, membership)
        self._outbox_store = await startup.open_outbox(
            self._paths.outbox_db, self._storage_failed, self._stack
        )
        self._lived.at_least(await self._outbox_store.newest_stamp())
        self._clocks = OutboxClocks(self._clock, self._lived, BrokerTime(self._clock))
        self._inbox = await startup.open_inbox(
            self._paths.inbox_db, self._clock, self._lived, self._storage_failed, self._stack
        )
        self._new_id = UlidFactory(self._clock.wall_ms, secrets.token_bytes).new
        self._bus = Bus()
        self._stack.callback(self._bus.close)
        self._metrics = DaemonMetrics(self.conditions)
        self._directory.refusals.on_new = self._metrics.entry_refused
        self._notices = Notices(
            self._bus, self._metrics, lambda message_id: self._submitter.settled(message_id)
        )
        watched = (self._paths, self._settings, self._outbox_store, self._inbox)
        self._storage = StorageMonitor(*watched, self.conditions, self._lived, self._notices.pressure_high)
        self._assemble_hooks()
        self._connect(membership, keyring)
        sealer = Sealer(keyring, membership.mesh_id, secrets.token_bytes)
        self._destinations = Destinations(self._directory, self._topics.check)
        self._assemble_sending(membership, keyring, sealer)
        self._assemble_receiving(membership, keyring)
        await self._storage.recover(self._drain, round(self._settings.max_backoff_ms * 1.25), self._tasks)
        await self._reconciler.load()
        self._assemble_api(membership, keyring, sealer)
        await self._serve()

    def _connect(self, membership: Membership, keyring: Keyring) -> None:
        self._replies = WrongReplies(self.conditions, self._metrics.reply_wrong)
        self._link = Link(
            membership,
            keyring,
            self._backoff,
            instance_id=self._new_id(),
            host_fingerprint=host_fingerprint(),
            replies=self._replies,
            require=self._settings.required_features,
            optional=self._settings.features_optional,
            on_local_cause=self._storage.link_trouble,
            on_limit=partial(self._metrics.limit_reached, "link"),
        )
        save = partial(self._storage.files.write, self._paths.peers.name, self._directory.save)
        self._sync = DirectorySync(self._directory, self._link.call, self._tasks, self._clock, save)
        self._sync.on_list = partial(self._directory.show, self.conditions)
        self._stack.callback(self._sync.close)
        own_id, publish = membership.member_id, self._bus.publish
        self._presence = Presence(own_id, self._directory, self._sync, publish)
        self._clones = CloneWatch(own_id, self.conditions, publish, self._metrics.clone_suspected)
        link, parts = self._link, (self._tasks, self._clock, self._storage.files.write)
        self._topics = KnownTopics(self._paths.topics, link.call, lambda: link.connected, *parts)
        self._topics.load()

    def _assemble_hooks(self) -> None:
        self._hooks = Hooks(
            self._inbox.jobs,
            HookPlaces(self._paths.hooks, self._paths.sock, self._paths.slug),
            self._metrics,
            self._bus,
            self._clock,
            self._new_id,
            lambda request: self._submitter.submit(request),
            partial(is_sender, self._directory),
            self._settings.hooks_concurrency,
        )
        self._hooks.manifest = startup.load_hooks(self._paths.hooks_manifest, self._settings)

    def _assemble_sending(self, membership: Membership, keyring: Keyring, sealer: Sealer) -> None:
        store = self._outbox_store
        self._storage.disk.look()
        parts = (self._clocks, self._backoff, self.conditions, self._metrics)
        self._drain = Drain(store, self._link, *parts, self._notices.ended, self._storage.outbox_storage)
        write = self._storage.files.write
        self._reconciler = Reconciler(
            store.done,
            self._link,
            ReconcilerFiles(self._paths.topic_subscriptions, self._paths.broker_features, write),
            self._directory,
            membership,
            keyring,
            clock=self._clock,
            lived=self._lived,
            backoff=self._backoff,
            busy=lambda: self._drain.inflight > 0,
            conditions=self.conditions,
            on_crash=self._crashed,
        )
        self._drain.may_come_back = self._reconciler.may_come_back
        self._submitter = Submitter(
            store,
            sealer,
            self._destinations,
            self._clock,
            self._new_id,
            enqueue=self._drain.submit,
            look_again=lambda target: (self._sync if target.kind == "dm" else self._topics).after_miss(),
            no_room=self._storage.disk.refusal,
            pre_send=self._hooks,
        )
        self._submitter.inline_bytes = startup.load_inline_bytes(self._paths.broker_features)

    def _assemble_receiving(self, membership: Membership, keyring: Keyring) -> None:
        verifier = Verifier(
            keyring, membership.mesh_id, membership.slug, self._new_id, _MAX_BODY, self._hooks.for_message
        )
        verifier.on_without_context = self._metrics.body_without_context
        self._receiver = Receiver(
            self._inbox,
            verifier,
            self._directory,
            self._sync.now,
            self._link,
            self._bus,
            self._clock,
            self._metrics,
            self._hooks.wake,
            self._storage.inbox_storage,
            self._storage.disk.check_room_for_messages,
            on_sealed=lambda senders: self._unsealer.stored(senders),
        )
        sealed, monotonic = self._inbox.sealed, self._clock.monotonic
        parts = (sealed, verifier, self._directory, self._receiver.unsealed, self._sync.soon, monotonic)
        self._unsealer = Unsealer(*parts)
        self._sync.on_change.append(self._unsealer.directory_changed)
        kept = (self._outbox_store, self._inbox, self._clocks, self._settings, self._notices.expired)
        keep_clock = partial(startup.keep_lived_clock, self._paths.lived_clock, self._lived)
        self._housekeeping = Housekeeping(*kept, keep_clock)

    def _assemble_api(self, membership: Membership, keyring: Keyring, sealer: Sealer) -> None:
        clock, link, store = self._clock, self._link, self._outbox_store
        parts = (store, self._submitter, sealer, self._destinations, self._clocks, self._new_id)
        recovery = OutboxRecovery(*parts, self._reconciler.look_up, self._drain.wake)
        self._config = LiveConfig(self._settings, clock.wall_ms())
        self.health = HealthReport(membership, keyring, clock, self._config, link, store, self.conditions)
        counted = (self._receiver, self._drain, self._bus, self._lived, lambda: self._storage.disk.room)
        page = MetricsPage(self._metrics, link, store, *counted)
        self.routes = api.ApiRoutes(
            send=api.SendRoutes(submit=self._submitter.submit),
            topics=api.TopicRoutes(own=self._reconciler.topics, known=self._topics, call=link.call),
            inbox=api.InboxRoutes(store=self._inbox, clock=clock),
            outbox=api.OutboxRoutes(store=store, recovery=recovery, wall_of=self._clocks.wall_of),
            peers=api.PeerRoutes(
                directory=self._directory, presence=self._presence, clock=clock, call=link.call
            ),
            events=api.EventRoutes(inbox=self._inbox, bus=self._bus),
            status=api.StatusRoutes(health=self.health, page=page, reload=self.reload, stop=self.stop_soon),
        )

    def _session(self) -> BrokerSession:
        parts = SessionParts(
            submitter=self._submitter,
            drain=self._drain,
            receiver=self._receiver,
            clocks=self._clocks,
            housekeeping=self._housekeeping,
            reconciler=self._reconciler,
            presence=self._presence,
            topics=self._topics,
            event_parts=(self._presence, self._sync, self._topics, self._reconciler, self._clones),
            hooks=self._hooks,
            bus=self._bus,
            metrics=self._metrics,
            health=self.health,
            replies=self._replies,
        )
        return BrokerSession(parts, self.end)

    async def _serve(self) -> None:
        require_descriptors(_DESCRIPTORS)  # otherwise it would run, and answer no request
        parts = (self._paths, self.routes, self._config, self._metrics, self._hooks)
        self._listeners = ApiListeners(*parts, self._storage.files.write, self.conditions)
        await self._listeners.open()
        hooks = startup.HooksFile(self._paths.hooks_manifest, self._hooks)
        taking_part = (self._housekeeping, self._listeners, hooks, self._storage, self._link)
        self._reload = Reload(self._paths.config, self._config, self._clock, self.conditions, taking_part)
        self._storage.files.write_number(self._paths.pid, os.getpid())
        self._stack.callback(lambda: remove(self._paths.pid))
        self._storage.files.write_number(self._paths.schema_version, self._outbox_store.schema_version)
        self._tasks.start(self._drain.run(), "drain")
        self._tasks.start(self._drain.carry(), "drain_carry")
        self._tasks.start(self._session().run(self._link), "link")
        self._tasks.start(self._hooks.run(), "hooks")
        self._tasks.start(self._housekeeping.run(), "housekeeping")
        self._tasks.start(self._listeners.run(), "listeners")
        self._tasks.start(self._unsealer.run(), "unseal")
        self._storage.start(self._tasks)
        self._hooks.tell("on-startup", {"daemon_version": claudemesh.__version__})
        membership = self.health.membership
        log.info("daemon_started", mesh=membership.slug, name=membership.name)

    def _crashed(self, task: str, error: BaseException) -> None:
        self.end(ExitWith(INTERNAL, "internal_error", f"The {task} task failed: {error!r}; see the log."))

    def _storage_failed(self, error: StorageError) -> None:
        self.end(ExitWith(INTERNAL, "storage_broken", f"{error}."))

    def end(self, ending: ExitWith | None) -> None:
        """End orderly, for this reason if there is one; the first one counts."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(ending)
