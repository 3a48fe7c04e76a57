"""Assembly of the parts on the path of a send, from acceptance to the broker's result."""

from __future__ import annotations

import secrets
from functools import partial

from msgspec.structs import replace

from claudemesh.daemon import startup
from claudemesh.daemon.hooks.presend import PreSendHook
from claudemesh.daemon.hooks.recent import RecentRuns
from claudemesh.daemon.hooks.runner import HookPlaces
from claudemesh.daemon.hooks.runs import HookRuns
from claudemesh.daemon.hooks.senders import is_sender
from claudemesh.daemon.hooks.service import Hooks
from claudemesh.daemon.outbox.body_limit import BodyLimit
from claudemesh.daemon.outbox.destinations import Destinations
from claudemesh.daemon.outbox.draft import Drafts
from claudemesh.daemon.outbox.drain import Drain, DrainHandlers
from claudemesh.daemon.outbox.recovery import OutboxRecovery
from claudemesh.daemon.outbox.reoffer import Reoffer
from claudemesh.daemon.outbox.sealer import Sealer
from claudemesh.daemon.outbox.submit import Submitter
from claudemesh.daemon.outbox.waiting_rows import WaitingRows
from claudemesh.daemon.parts import Base, BrokerSide, Restoring, Sending, Stores
from claudemesh.daemon.receipts.replying import Replying
from claudemesh.daemon.restore.broker_notes import BrokerNotes
from claudemesh.daemon.restore.reconcile import Reconciler
from claudemesh.daemon.sessions.loops import LoopGuard

_MAX_BODY = 4 << 20


def sending_side(base: Base, stores: Stores, broker: BrokerSide, restoring: Restoring) -> Sending:
    """Return the parts."""
    stores.monitor.disk.look()
    destinations = Destinations(stores.directory, broker.topics.check)
    body_limit = BodyLimit(startup.load_inline_bytes(base.paths.broker_features))
    keys = broker.topic_keys
    waiting = WaitingRows(
        stores.outbox,
        keys,
        lambda row: sealer.seal_again(row),
        lambda: drain.wake(),
        restoring.state.may_come_back,
        stores.notices.ended,
    )
    keys.on_gone(waiting.topic_is_gone)
    sealer = Sealer(base.keyring, base.membership.mesh_id, secrets.token_bytes, body_limit, waiting)
    keys.on_key(waiting.key_came)
    drain = _drain(base, stores, broker, restoring, waiting, body_limit)
    restoring.state.on_asked(drain.wake)
    restoring.state.on_went_back(keys.look_again)
    reconciler = _reconciler(base, stores, broker, restoring, drain, waiting)
    hook_runs = _hook_runs(base, stores)
    submitter = Submitter(
        stores.outbox,
        Drafts(
            destinations,
            stores.monitor.disk.refusal,
            lambda target: (broker.sync if target.kind == "dm" else broker.topics).after_miss(),
        ),
        sealer,
        base.clock,
        base.new_id,
        stores.callers,
        drain.submit,
        PreSendHook(hook_runs),
    )
    concurrency = base.settings.hooks_concurrency

    async def note(answered: str, session: str | None) -> None:
        await stores.inbox.note_reply(answered, base.clock.wall_ms(), session)

    loops, tracing = LoopGuard(base.clock.monotonic, stores.directory), base.tracing
    submit = submitter.submit if tracing is None else tracing.submitting(submitter.submit)
    replying = Replying(submit, note, loops.sent)
    hooks = Hooks(stores.inbox.jobs, hook_runs, base.new_id, replying.submit, concurrency)
    parts = (stores.outbox, submitter, sealer, destinations, stores.clocks, base.new_id)
    recovery = OutboxRecovery(*parts, reconciler.look_up, drain.wake)
    return Sending(
        body_limit=body_limit,
        hooks=hooks,
        hook_runs=hook_runs,
        drain=drain,
        submitter=submitter,
        replying=replying,
        loops=loops,
        reconciler=reconciler,
        recovery=recovery,
        waiting=waiting,
    )


def _drain(
    base: Base,
    stores: Stores,
    broker: BrokerSide,
    restoring: Restoring,
    waiting: WaitingRows,
    body_limit: BodyLimit,
) -> Drain:
    state = restoring.state
    handlers = DrainHandlers(
        stores.notices.ended,
        stores.monitor.outbox_storage,
        state.may_come_back,
        lambda: state.is_asked,
        waiting.refused,
        waiting.written,
    )
    if base.tracing is not None:
        handlers = replace(handlers, on_taken=base.tracing.taken, on_outcome=base.tracing.settled)
    return Drain(
        stores.outbox,
        broker.link,
        stores.clocks,
        base.backoff,
        base.conditions,
        base.metrics,
        handlers,
        body_limit,
    )


def _reconciler(
    base: Base,
    stores: Stores,
    broker: BrokerSide,
    restoring: Restoring,
    drain: Drain,
    waiting: WaitingRows,
) -> Reconciler:
    sends, state = stores.outbox.done, restoring.state
    link, show = broker.link, state.show_waiting
    reoffer = Reoffer(sends, link, base.backoff, lambda: drain.inflight > 0, show, waiting.seal_offer)
    broker.topic_keys.on_key(lambda topic: reoffer.try_refused_now())
    return Reconciler(
        sends,
        broker.link,
        reoffer,
        restoring.own_topics,
        BrokerNotes(base.paths.broker_features, base.files.write),
        state,
        base.backoff,
        base.on_crash,
    )


def _hook_runs(base: Base, stores: Stores) -> HookRuns:
    return HookRuns(
        HookPlaces(base.paths.hooks, base.paths.sock, base.paths.slug),
        base.metrics,
        RecentRuns(base.bus, base.clock.wall_ms),
        partial(is_sender, stores.directory),
        base.clock.monotonic,
        base.settings.hooks_concurrency,
        startup.load_hooks(base.paths.hooks_manifest, base.settings),
        base.tracing,
    )
