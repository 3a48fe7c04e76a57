"""Groups of routes of the local API, each made with the parts that it needs."""

from __future__ import annotations

from functools import partial

from claudemesh.daemon import api
from claudemesh.daemon.identity.absence import absence
from claudemesh.daemon.identity.profile import ProfileUpdates
from claudemesh.daemon.identity.verifying import PeerVerification
from claudemesh.daemon.parts import Parts
from claudemesh.daemon.sessions.news import SessionNews
from claudemesh.daemon.settings import origins_in_force, readable_document
from claudemesh.daemon.status import MetricsPage


def _inbox_routes(parts: Parts) -> api.InboxRoutes:
    return api.InboxRoutes(
        store=parts.stores.inbox,
        sessions=parts.sessions,
        trust=parts.trust,
        clock=parts.base.clock,
        whole=parts.files.whole.complete,
    )


def _outbox_routes(parts: Parts) -> api.OutboxRoutes:
    stores, broker = parts.stores, parts.broker
    return api.OutboxRoutes(
        store=stores.outbox,
        recovery=parts.sending.recovery,
        wall_of=stores.clocks.wall_of,
        watchers=stores.watchers,
        absence=partial(absence, stores.directory, broker.presence, lambda: broker.link.connected),
        fate_of_file=parts.files.lists.fate,
    )


def _metrics_page(parts: Parts) -> MetricsPage:
    base, stores = parts.base, parts.stores
    return MetricsPage(
        metrics=base.metrics,
        link=parts.broker.link,
        outbox_store=stores.outbox,
        files=stores.files,
        drain=parts.sending.drain,
        bus=base.bus,
        lived=stores.lived,
        room=lambda: stores.monitor.disk.room,
        sealed=stores.inbox.sealed,
        topic_keys=parts.broker.topic_keys,
    )


def _activity_routes(parts: Parts) -> api.ActivityRoutes:
    stores, path = parts.stores, parts.base.paths.config
    return api.ActivityRoutes(
        clock=parts.base.clock,
        config=parts.health.config,
        received=stores.inbox.activity,
        sent=stores.outbox.activity,
        room=lambda: stores.monitor.disk.room,
        hook_runs=parts.sending.hook_runs.recent.items,
        origins=lambda settings: origins_in_force(settings, readable_document(path)),
    )


def make_routes(parts: Parts) -> api.ApiRoutes:
    """Return the groups of routes of the local API, each with the parts that it needs."""
    base, stores, link = parts.base, parts.stores, parts.broker.link
    clock, known = base.clock, parts.broker.topics

    def stop() -> None:
        base.end(None)

    directory, presence, own = stores.directory, parts.broker.presence, parts.broker.own
    profile = ProfileUpdates(link.call, base.tasks)
    verification = PeerVerification(
        mesh_id=base.membership.mesh_id,
        own_id=base.membership.member_id,
        keyring=base.keyring,
        directory=directory,
        sync=parts.broker.sync,
    )
    return api.ApiRoutes(
        send=api.SendRoutes(submit=parts.files.texts.submit),
        topics=api.TopicRoutes(
            own=parts.restoring.own_topics, known=known, keys=parts.broker.topic_keys, call=link.call
        ),
        inbox=_inbox_routes(parts),
        outbox=_outbox_routes(parts),
        keys=api.KeyRoutes(
            rotation=parts.restoring.rotation, keyring=base.keyring, verification=verification
        ),
        peers=api.PeerRoutes(directory=directory, presence=presence, profile=profile, own=own),
        invites=api.InviteRoutes(directory=directory, call=link.call),
        members=api.MemberRoutes(acts=parts.acts, own=own, directory=directory, presence=presence),
        files=api.FileRoutes(
            sharing=parts.files.sharing, fetching=parts.files.fetching, lists=parts.files.lists
        ),
        history=api.HistoryRoutes(
            history=parts.receiving.history, topics=parts.broker.topics, directory=directory, clock=clock
        ),
        sessions=api.SessionRoutes(
            sessions=parts.sessions,
            pushing=parts.pushing,
            news=SessionNews(parts.sessions, parts.stores.inbox.untold, parts.trust, parts.base.clock),
        ),
        events=api.EventRoutes(inbox=stores.inbox, bus=base.bus),
        status=api.StatusRoutes(
            health=parts.health,
            page=_metrics_page(parts),
            reload=base.reload,
            stop=stop,
            unread=stores.inbox.unread,
            without_text=stores.inbox.sealed.without_text,
            files_waiting=stores.files.waiting,
            served=api.SERVED,
            console_port=lambda: parts.console.port,
        ),
        activity=_activity_routes(parts),
        console=api.ConsoleRoutes(admission=parts.console),
    )
