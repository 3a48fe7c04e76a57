"""The local HTTP API (docs/spec/daemon.md, Local API)."""

from claudemesh.daemon.api.activity import ActivityRoutes
from claudemesh.daemon.api.app import SERVED, ApiRoutes, build_api
from claudemesh.daemon.api.console import ConsoleRoutes
from claudemesh.daemon.api.events import EventRoutes
from claudemesh.daemon.api.files import FileRoutes
from claudemesh.daemon.api.history import HistoryRoutes
from claudemesh.daemon.api.inbox import InboxRoutes
from claudemesh.daemon.api.invites import InviteRoutes
from claudemesh.daemon.api.keys import KeyRoutes
from claudemesh.daemon.api.members import MemberRoutes
from claudemesh.daemon.api.outbox import OutboxRoutes
from claudemesh.daemon.api.peers import PeerRoutes
from claudemesh.daemon.api.send import SendRoutes
from claudemesh.daemon.api.sessions import SessionRoutes
from claudemesh.daemon.api.status import StatusRoutes
from claudemesh.daemon.api.topics import TopicRoutes

__all__ = [
    "SERVED",
    "ActivityRoutes",
    "ApiRoutes",
    "ConsoleRoutes",
    "EventRoutes",
    "FileRoutes",
    "HistoryRoutes",
    "InboxRoutes",
    "InviteRoutes",
    "KeyRoutes",
    "MemberRoutes",
    "OutboxRoutes",
    "PeerRoutes",
    "SendRoutes",
    "SessionRoutes",
    "StatusRoutes",
    "TopicRoutes",
    "build_api",
]
