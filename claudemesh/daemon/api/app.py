"""The local API as an ASGI app: access control, hook authorization, then dispatch by the table of routes."""

from __future__ import annotations

from msgspec import Struct

from claudemesh.daemon.api import (
    activity,
    console,
    events,
    files,
    history,
    inbox,
    invites,
    keys,
    members,
    outbox,
    peers,
    send,
    sessions,
    status,
    topics,
)
from claudemesh.daemon.api.access import AccessControl, AccessRules
from claudemesh.daemon.api.activity import ActivityRoutes
from claudemesh.daemon.api.console import ConsoleRoutes
from claudemesh.daemon.api.events import EventRoutes
from claudemesh.daemon.api.failures import not_found, reply_to
from claudemesh.daemon.api.files import FileRoutes
from claudemesh.daemon.api.history import HistoryRoutes
from claudemesh.daemon.api.hook_auth import HookAccess, HookAuth
from claudemesh.daemon.api.inbox import InboxRoutes
from claudemesh.daemon.api.invites import InviteRoutes
from claudemesh.daemon.api.keys import KeyRoutes
from claudemesh.daemon.api.members import MemberRoutes
from claudemesh.daemon.api.openapi import description_of
from claudemesh.daemon.api.outbox import OutboxRoutes
from claudemesh.daemon.api.peers import PeerRoutes
from claudemesh.daemon.api.send import SendRoutes
from claudemesh.daemon.api.sessions import SessionRoutes
from claudemesh.daemon.api.status import StatusRoutes
from claudemesh.daemon.api.topics import TopicRoutes
from claudemesh.runtime.rate_limit import TokenBucket
from claudemesh.runtime.web.asgi import App
from claudemesh.runtime.web.dispatch import Dispatcher, Group
from claudemesh.runtime.web.routes import RouteTable, ServeOptions

_DESCRIBED = (
    *send.ROUTES,
    *topics.ROUTES,
    *inbox.ROUTES,
    *outbox.ROUTES,
    *keys.ROUTES,
    *peers.ROUTES,
    *invites.ROUTES,
    *members.ROUTES,
    *files.ROUTES,
    *history.ROUTES,
    *sessions.ROUTES,
    *events.ROUTES,
    *status.ROUTES,
    *activity.ROUTES,
    *console.ROUTES,
)
_DESCRIPTION = description_of(_DESCRIBED)
ROUTES = (*_DESCRIBED, _DESCRIPTION)
TABLE = RouteTable((*ROUTES, *console.PAGE_ROUTES))
# By these names /v1/version tells clients which routes there are.
SERVED = tuple(f"{route.method} {route.path}" for route in ROUTES)
OPTIONS = ServeOptions(reply_to=reply_to, not_found=not_found)


class ApiRoutes(Struct, frozen=True, kw_only=True):
    """The groups of routes of one daemon, each with the parts that its handlers need."""

    send: SendRoutes
    topics: TopicRoutes
    inbox: InboxRoutes
    outbox: OutboxRoutes
    keys: KeyRoutes
    peers: PeerRoutes
    invites: InviteRoutes
    members: MemberRoutes
    files: FileRoutes
    history: HistoryRoutes
    sessions: SessionRoutes
    events: EventRoutes
    status: StatusRoutes
    activity: ActivityRoutes
    console: ConsoleRoutes

    def groups(self, *, with_page: bool) -> tuple[Group, ...]:
        """Return each group with its part of the table. `with_page` adds the files of the console."""
        page = console.PAGE_ROUTES if with_page else ()
        return (
            Group(self.send, send.ROUTES),
            Group(self.topics, topics.ROUTES),
            Group(self.inbox, inbox.ROUTES),
            Group(self.outbox, outbox.ROUTES),
            Group(self.keys, keys.ROUTES),
            Group(self.peers, peers.ROUTES),
            Group(self.invites, invites.ROUTES),
            Group(self.members, members.ROUTES),
            Group(self.files, files.ROUTES),
            Group(self.history, history.ROUTES),
            Group(self.sessions, sessions.ROUTES),
            Group(self.events, events.ROUTES),
            Group(self.status, status.ROUTES),
            Group(self.activity, activity.ROUTES),
            Group(self.console, (*console.ROUTES, *page)),
            Group(None, (_DESCRIPTION,)),
        )


def build_api(
    routes: ApiRoutes,
    rules: AccessRules | None = None,
    *,
    rate_limit: TokenBucket | None = None,
    hooks: HookAccess | None = None,
    options: ServeOptions = OPTIONS,
) -> AccessControl:
    """Return the ASGI app for one listener. Without `hooks` no caller is treated as a hook.

    The console is served where a browser can have a session with it.
    """
    has_page = rules is not None and rules.is_session is not None
    app: App = Dispatcher(routes.groups(with_page=has_page), options)
    if hooks is not None:
        app = HookAuth(app, hooks, TABLE.for_hooks)
    return AccessControl(app, rules or AccessRules(), rate_limit=rate_limit, uncounted=TABLE.uncounted)
