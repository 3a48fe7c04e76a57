"""Assembly of a daemon: creates its parts and passes them to each other as arguments."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial

from claudemesh.daemon import startup
from claudemesh.daemon.broker_session import BrokerSession, SessionParts
from claudemesh.daemon.calls import WrongReplies
from claudemesh.daemon.file_parts import file_side
from claudemesh.daemon.housekeeping import Housekeeping
from claudemesh.daemon.identity.acting import MemberActs
from claudemesh.daemon.identity.clones import CloneWatch
from claudemesh.daemon.identity.leaving import leave
from claudemesh.daemon.identity.news import MemberNews
from claudemesh.daemon.identity.own import OwnMember
from claudemesh.daemon.identity.presence import Presence
from claudemesh.daemon.identity.sync import DirectorySync
from claudemesh.daemon.inbox.history import History
from claudemesh.daemon.inbox.patient_store import PatientStore
from claudemesh.daemon.inbox.publisher import InboxPublisher
from claudemesh.daemon.inbox.rebuild import InboxRebuild
from claudemesh.daemon.inbox.receive import Receiver
from claudemesh.daemon.inbox.unsealer import Unsealer
from claudemesh.daemon.inbox.verify import OpeningNotes, Verifier
from claudemesh.daemon.key_parts import key_rotation, topic_keys
from claudemesh.daemon.link.handshake import Handshake
from claudemesh.daemon.link.link import Link
from claudemesh.daemon.live_config import LiveConfig
from claudemesh.daemon.moving import Mover
from claudemesh.daemon.notices import Notices
from claudemesh.daemon.outbox.age import BrokerTime, OutboxClocks
from claudemesh.daemon.outbox.callers import WaitingCallers
from claudemesh.daemon.parts import Base, BrokerSide, Parts, Receiving, Restoring, Sending, Stores
from claudemesh.daemon.receipt_parts import receipt_side
from claudemesh.daemon.restore.readmission import Readmission
from claudemesh.daemon.restore.restating import Restating
from claudemesh.daemon.restore.state import RestoreState
from claudemesh.daemon.restore.vouching import Vouching
from claudemesh.daemon.sending_side import sending_side
from claudemesh.daemon.sessions.local_inbox import LocalHost, LocalInbox
from claudemesh.daemon.sessions.publishing import SessionPublishing
from claudemesh.daemon.sessions.pushing import Pushing
from claudemesh.daemon.sessions.service import Sessions
from claudemesh.daemon.sessions.store import SessionStore
from claudemesh.daemon.sessions.trust import SenderTrust
from claudemesh.daemon.status import HealthReport
from claudemesh.daemon.storage_monitor import StorageMonitor
from claudemesh.daemon.topics.known import KnownTopics
from claudemesh.daemon.topics.own import OwnTopics
from claudemesh.home.recovered import rebuild_path
from claudemesh.protocol.ids import UlidFactory
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.console.admission import Admission
from claudemesh.runtime.sidefiles import PacedFile

_MAX_BODY = 4 << 20


def make_new_id(clock: Clock) -> Callable[[], str]:
    """Return a function that makes ULIDs."""
    return UlidFactory(clock.wall_ms, os.urandom).new


async def open_stores(base: Base) -> Stores:
    """Open the directory and both databases. Raise `ExitWith`, which names the file and the cause."""
    paths, stack = base.paths, base.stack
    lived = startup.open_lived_clock(paths.lived_clock, base.clock, stack)
    directory = startup.load_directory(paths.peers, base.membership, base.metrics.entry_refused)
    outbox = await startup.open_outbox(paths, base.on_storage_broken, stack)
    lived.at_least(await outbox.newest_stamp())
    kept = (lived, base.files.write)
    inbox = await startup.open_inbox(paths.inbox_db, base.clock, base.on_storage_broken, stack, *kept)
    files = await startup.open_files(paths, base.on_storage_broken, stack)
    callers, watchers = WaitingCallers(), WaitingCallers()
    notices = Notices(base.bus, base.metrics, callers, watchers)
    watched = (paths, base.settings, outbox, inbox, files)
    return Stores(
        lived=lived,
        clocks=OutboxClocks(base.clock, lived, BrokerTime(base.clock)),
        directory=directory,
        outbox=outbox,
        inbox=inbox,
        files=files,
        monitor=StorageMonitor(*watched, base.conditions, lived, notices.pressure_high),
        callers=callers,
        watchers=watchers,
        notices=notices,
    )


def assemble(base: Base, stores: Stores) -> Parts:
    """Make all parts. Raise `ExitWith` when hooks.toml is wrong."""
    broker = _broker_side(base, stores)
    config = LiveConfig(base.settings, base.clock.wall_ms())
    restoring = _restoring(base, stores, broker, config)
    sending = sending_side(base, stores, broker, restoring)
    receiving = _receiving(base, stores, broker, sending)
    broker.sync.on_news(MemberNews(stores.directory, base.bus.publish, sending.hooks.tell).on_news)
    kept = (stores.outbox, stores.inbox, stores.clocks, base.settings, stores.notices.expired)
    keep_clock = partial(startup.keep_lived_clock, base.paths.lived_clock, stores.lived)
    housekeeping = Housekeeping(*kept, keep_clock, restoring.rotation.expire, stores.files.drop_requests)
    health = HealthReport(
        membership=base.membership,
        address=base.address,
        keyring=base.keyring,
        clock=base.clock,
        config=config,
        link=broker.link,
        outbox_store=stores.outbox,
        conditions=base.conditions,
        with_broker=base.with_broker,
    )
    broker.own.on_change(health.membership_changed)
    sessions = Sessions(
        SessionStore(stores.inbox.database),
        base.clock,
        base.new_id,
        lambda: config.settings.deliver_host_messages,
    )
    trust = SenderTrust(stores.directory, lambda: config.settings.session_trust)
    signing = (base.keyring, stores.directory, broker.sync, broker.link.call, health.broker_wall_ms)
    return Parts(
        base=base,
        stores=stores,
        broker=broker,
        restoring=restoring,
        sending=sending,
        receiving=receiving,
        files=file_side(base, stores, broker, sending, restoring, config),
        sessions=sessions,
        trust=trust,
        session_news=_session_news(base, stores, broker, sessions, config),
        pushing=Pushing(sessions, stores.inbox, base.bus, base.clock, trust),
        receipts=receipt_side(base, stores, sending, receiving, lambda: config.settings.publish_sessions),
        housekeeping=housekeeping,
        config=config,
        health=health,
        acts=MemberActs(broker.own, *signing, base.tasks),
        console=Admission(stores.lived.now_ms),
    )


def _broker_side(base: Base, stores: Stores) -> BrokerSide:
    settings, files, directory = base.settings, base.files, stores.directory
    replies = WrongReplies(base.conditions, base.metrics.reply_wrong)
    handshake = Handshake(
        base.membership,
        base.address,
        base.keyring,
        instance_id=base.new_id(),
        host_fingerprint=base.host_fingerprint,
        require=settings.required_features,
        optional=settings.features_optional,
    )
    link = Link(
        base.address,
        handshake,
        base.backoff,
        replies,
        on_local_cause=stores.monitor.link_trouble,
        on_limit=partial(base.metrics.limit_reached, "link"),
    )
    name = base.paths.peers.name
    file = PacedFile(
        base.tasks,
        partial(files.write, name, directory.save),
        partial(files.write_aside, name, directory.save_aside),
    )
    sync = DirectorySync(directory, link.call, base.tasks, base.clock, file, base.conditions)
    base.stack.callback(sync.close)
    own_id, publish = base.membership.member_id, base.bus.publish
    shared = (base.tasks, base.clock, files.write)
    topics = KnownTopics(base.paths.topics, link.call, lambda: link.connected, *shared)
    topics.load()
    base.stack.callback(topics.close)
    own = OwnMember(base.membership, base.paths, directory, base.end)
    sync.on_other_history(own.history_changed)
    sync.on_change(own.directory_changed)
    keys = topic_keys(base, stores, link, sync.know)
    topics.on_list(keys.listed)
    sync.on_news(keys.members_changed)
    return BrokerSide(
        link=link,
        replies=replies,
        sync=sync,
        presence=Presence(own_id, directory, sync, publish, base.clock, link.call, base.tasks),
        clones=CloneWatch(own_id, base.conditions, publish, base.metrics.clone_suspected),
        topics=topics,
        mover=Mover(base.membership.mesh_id, base.address, directory, link.call, link.close, base.conditions),
        own=own,
        topic_keys=keys,
    )


def _restoring(base: Base, stores: Stores, broker: BrokerSide, config: LiveConfig) -> Restoring:
    membership = base.membership
    topics = OwnTopics(base.paths.topic_subscriptions, base.clock, base.files.write)
    readmission = Readmission(membership, base.address, base.keyring, topics, base.conditions)
    broker.own.on_change(readmission.membership_changed)
    restating = Restating(stores.directory, membership.member_id, broker.link.call, base.tasks)
    broker.sync.on_page(restating.on_page)
    return Restoring(
        state=RestoreState(stores.lived.now_ms, base.conditions, lambda: broker.sync.may_be_behind),
        own_topics=topics,
        rotation=key_rotation(base, stores, broker.link, config),
        vouching=Vouching(stores.directory, membership.member_id, broker.link.call, base.tasks),
        restating=restating,
        readmission=readmission,
    )


def _receiving(base: Base, stores: Stores, broker: BrokerSide, sending: Sending) -> Receiving:
    membership, hooks, monitor = base.membership, sending.hooks, stores.monitor
    verifier = Verifier(
        base.keyring,
        membership.mesh_id,
        membership.slug,
        base.new_id,
        _MAX_BODY,
        sending.hook_runs.for_message,
        broker.topic_keys,
        OpeningNotes(base.metrics.body_without_context, base.metrics.sealed_to_older_key),
    )
    publisher = InboxPublisher(base.bus, base.metrics, hooks.wake)
    unsealer = Unsealer(
        stores.inbox.sealed,
        verifier,
        stores.directory,
        publisher.unsealed,
        broker.sync.soon,
        base.clock.monotonic,
    )
    unsealer.on_bodies(sending.loops.opened)
    broker.sync.on_change(unsealer.directory_changed)
    broker.topic_keys.on_key(unsealer.topic_key_came)
    store = PatientStore(stores.inbox, monitor.disk.check_room_for_messages, monitor.inbox_storage)
    receiver = Receiver(
        store,
        verifier,
        stores.directory,
        broker.sync.know,
        broker.link,
        publisher,
        base.clock,
        unsealer,
    )
    receiver.on_rows(sending.loops.received)
    if base.tracing is not None:
        receiver.trace(base.tracing)
    here = LocalHost(
        member_id=membership.member_id,
        slug=membership.slug,
        hooks=sending.hook_runs.for_message,
        mark=sending.loops.received,
        check_room=monitor.disk.check_room_for_messages,
        now_ms=base.clock.wall_ms,
        settled=stores.notices.ended,
    )
    local = LocalInbox(stores.inbox, publisher, here)
    sending.submitter.on_local(local)
    history = History(
        broker.link.call,
        verifier,
        stores.directory,
        broker.sync.know,
        membership.member_id,
        publisher.dropped,
    )
    rebuild = InboxRebuild(
        rebuild_path(base.paths.inbox_db), history, store.insert, base.clock, base.tasks, base.conditions
    )
    return Receiving(receiver=receiver, local=local, unsealer=unsealer, history=history, rebuild=rebuild)


def _session_news(
    base: Base, stores: Stores, broker: BrokerSide, sessions: Sessions, config: LiveConfig
) -> SessionPublishing:
    news = SessionPublishing(
        lambda: sessions.cards() if config.settings.publish_sessions else (),
        broker.link.call,
        stores.directory,
        base.membership.member_id,
    )
    sessions.on_change(news.wake)
    broker.sync.on_change(news.wake)
    return news


def _session(parts: Parts) -> BrokerSession:
    base, broker, sending, restoring = parts.base, parts.broker, parts.sending, parts.restoring
    followers = (broker.sync, broker.topics, broker.topic_keys, sending.reconciler)
    session = SessionParts(
        body_limit=sending.body_limit,
        drain=sending.drain,
        receiver=parts.receiving.receiver,
        rebuild=parts.receiving.rebuild,
        clocks=parts.stores.clocks,
        housekeeping=parts.housekeeping,
        readmission=restoring.readmission,
        rotation=restoring.rotation,
        reconciler=sending.reconciler,
        presence=broker.presence,
        topics=broker.topics,
        topic_keys=broker.topic_keys,
        mover=broker.mover,
        event_parts=(
            *followers,
            restoring.vouching,
            broker.clones,
            broker.mover,
            broker.own,
        ),
        hooks=sending.hooks,
        bus=base.bus,
        metrics=base.metrics,
        health=parts.health,
        replies=broker.replies,
        own=broker.own,
        acts=parts.acts,
        files=parts.files,
        session_news=parts.session_news,
    )
    return BrokerSession(session, base.end)


async def recover(parts: Parts) -> None:
    """Make rows pending that an earlier run left in flight, and read its note of a restore."""
    base, sending = parts.base, parts.sending
    longest_wait_ms = round(base.settings.max_backoff_ms * 1.25)
    await parts.stores.monitor.recover(sending.drain, longest_wait_ms, base.tasks)
    await sending.reconciler.load()
    await sending.waiting.load()
    await parts.sessions.load()


def start_tasks(parts: Parts) -> None:
    """Start every task that runs until the daemon stops."""
    tasks, sending = parts.base.tasks, parts.sending
    tasks.start(sending.drain.run(), "drain")
    if parts.base.tracing is not None:
        tasks.start(parts.base.tracing.exporter.run(), "tracing")
    tasks.start(sending.drain.carry(), "drain_carry")
    tasks.start(sending.waiting.run(), "waiting_rows")
    tasks.start(_session(parts).run(parts.broker.link), "link")
    if not parts.base.with_broker:
        tasks.start(parts.broker.mover.run(), "mover")
    tasks.start(sending.hooks.run(), "hooks")
    tasks.start(parts.housekeeping.run(), "housekeeping")
    tasks.start(parts.files.uploads.run(), "uploads")
    tasks.start(parts.sessions.run(), "sessions")
    tasks.start(parts.session_news.run(), "session_news")
    tasks.start(parts.receipts.run(), "receipts")
    tasks.start(parts.receiving.unsealer.run(), "unseal")
    tasks.start(parts.base.files.run(), "side_files")
    parts.stores.monitor.start(tasks)


async def finish(parts: Parts, *, receive_s: float, drain_s: float) -> None:
    """Finish receiving and draining, within `receive_s` and `drain_s` seconds, then close the link and all
    tasks. An ephemeral member shares its files before, within half of `drain_s`, and leaves the mesh."""
    sending, receiver = parts.sending, parts.receiving.receiver
    if parts.base.membership.ephemeral:
        # The files of other members are shared after the next start.
        await parts.files.uploads.finish(drain_s / 2)
    parts.files.stop()
    # Acknowledgements leave before the link closes, or a work queue gives stored messages to another
    # worker.
    await asyncio.gather(
        receiver.finish(receive_s), sending.drain.finish(drain_s), sending.hooks.finish(drain_s)
    )
    await sending.reconciler.close()
    if parts.base.membership.ephemeral and parts.broker.link.connected:
        await leave(parts.broker.link.call)
    await parts.broker.link.close()
    await parts.base.tasks.stop()
    parts.broker.presence.keep_seen()
    await receiver.close()
    await parts.receiving.local.close()
