"""Broker session: reactions of the daemon when the link opens, closes, or brings a result or an event."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from msgspec import Struct

from claudemesh.daemon.bus import Bus, BusEvent
from claudemesh.daemon.calls import WrongReplies
from claudemesh.daemon.files.side import FileSide
from claudemesh.daemon.hooks.service import Hooks
from claudemesh.daemon.housekeeping import Housekeeping
from claudemesh.daemon.identity.acting import MemberActs
from claudemesh.daemon.identity.own import OwnMember
from claudemesh.daemon.identity.presence import Presence
from claudemesh.daemon.identity.rotation import KeyRotation
from claudemesh.daemon.inbox.rebuild import InboxRebuild
from claudemesh.daemon.inbox.receive import Receiver
from claudemesh.daemon.link.link import Link, LinkHandlers, Opened
from claudemesh.daemon.metrics import DaemonMetrics
from claudemesh.daemon.moving import Mover
from claudemesh.daemon.outbox.age import OutboxClocks
from claudemesh.daemon.outbox.body_limit import BodyLimit
from claudemesh.daemon.outbox.drain import Drain
from claudemesh.daemon.restore.readmission import Readmission
from claudemesh.daemon.restore.reconcile import Reconciler
from claudemesh.daemon.sessions.publishing import SessionPublishing
from claudemesh.daemon.status import HealthReport
from claudemesh.daemon.topics.keys import TopicKeys
from claudemesh.daemon.topics.known import KnownTopics
from claudemesh.home.ended import LEFT, REVOKED
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.events import News, PresenceEvent, parse_event
from claudemesh.protocol.frames import Event, SendResult
from claudemesh.runtime.exits import ExitWith
from claudemesh.runtime.logs import get_logger

log = get_logger("daemon")


class EventPart(Protocol):
    """A part of the daemon that processes events of the broker."""

    def on_event(self, news: News) -> None:
        """Process an event if it concerns this part."""
        ...


class SessionParts(Struct, frozen=True, kw_only=True):
    """The parts of the daemon that follow the link. `event_parts` get each event that is not about
    presence, in this order.
    """

    body_limit: BodyLimit
    drain: Drain
    receiver: Receiver
    rebuild: InboxRebuild
    clocks: OutboxClocks
    housekeeping: Housekeeping
    readmission: Readmission
    rotation: KeyRotation
    reconciler: Reconciler
    presence: Presence
    topics: KnownTopics
    topic_keys: TopicKeys
    mover: Mover
    event_parts: Iterable[EventPart]
    hooks: Hooks
    bus: Bus
    metrics: DaemonMetrics
    health: HealthReport
    replies: WrongReplies
    own: OwnMember
    acts: MemberActs
    files: FileSide
    session_news: SessionPublishing


class BrokerSession:
    """Passes what happens on the link to the parts of the daemon. No reaction waits.

    `end` stops the daemon when the broker refuses it for good, or has limits that it cannot work with.
    """

    def __init__(self, parts: SessionParts, end: Callable[[ExitWith], None]) -> None:
        self._parts = parts
        self._end = end

    async def run(self, link: Link) -> None:
        """Keep the link open until cancelled, or until the broker refuses this daemon for good."""
        parts = self._parts
        handlers = LinkHandlers(
            link_up=self.link_up,
            link_down=self.link_down,
            on_result=self.on_result,
            on_deliver=parts.receiver.handle,
            on_event=self.on_event,
            readmit=parts.readmission.ask,
            rotated_out=parts.rotation.rotated_out,
            on_revoked=parts.own.note_revocation,
        )
        try:
            await link.run(handlers)
        except ExitWith as ending:
            if ending.error in (REVOKED, LEFT):
                # Also where the broker only says so as it closes the connection.
                parts.own.has_ended("revoked" if ending.error == REVOKED else "left")
                return
            if ending.error.startswith("feature_"):
                reason = {"kind": ending.error, "detail": ending.message}
                parts.bus.publish([BusEvent("feature_negotiation_failed", reason)])
            self._end(ending)

    def link_up(self, opened: Opened) -> None:
        """Start sending, synchronising and repairing on a new link."""
        parts, agreed, features = self._parts, opened.agreed, opened.agreed.features
        parts.body_limit.agree(features.inline_bytes)
        parts.clocks.broker.heard(agreed.hello.server_time)
        try:
            parts.housekeeping.link_up(features)
        except ExitWith as ending:
            self._end(ending)
            return
        parts.health.link_up(agreed.broker_wall_ms)
        log.info("link_up", broker_version=agreed.broker_version, connection=opened.connection)
        told = {"broker_version": agreed.broker_version}
        parts.bus.publish([BusEvent("daemon_reconnect", told)])
        parts.hooks.tell("on-reconnect", told)
        parts.readmission.link_up()
        parts.rotation.link_up()
        parts.reconciler.link_up(agreed)
        parts.presence.link_up(told=features.presence)
        parts.topics.link_up()
        parts.topic_keys.link_up()
        parts.mover.link_up()
        parts.acts.link_up()
        parts.session_news.wake()
        parts.files.link_up(features)
        parts.rebuild.link_up()
        parts.drain.wake()

    def link_down(self, reason: str, close_code: int) -> None:
        """Stop what needs the broker, and make rows in flight pending again."""
        parts = self._parts
        parts.reconciler.link_down()
        parts.housekeeping.link_down()
        parts.topic_keys.link_down()
        parts.metrics.link_down(reason)
        parts.presence.link_down()
        parts.drain.link_down(close_code)
        parts.bus.publish([BusEvent("daemon_disconnect", {"reason": reason})])
        parts.hooks.tell("on-disconnect", {"reason": reason})

    def on_result(self, result: SendResult) -> None:
        """Pass the broker's result to the part that has sent the row."""
        if not self._parts.reconciler.on_result(result):
            self._parts.drain.on_result(result)

    async def on_event(self, event: Event, weight: int) -> None:
        """Pass an event to the parts. A malformed event is counted and dropped."""
        try:
            news = await self._parts.replies.read(event.event, parse_event, event, weight)
        except ProtocolError:
            return
        if isinstance(news, PresenceEvent):
            await self._parts.presence.take(news)
        elif news is not None:
            for part in self._parts.event_parts:
                part.on_event(news)
