"""The ASGI app of a broker: the WebSocket, then HTTP routes behind the refusal of web pages."""

from __future__ import annotations

from functools import partial

from claudemesh.broker.context import Context
from claudemesh.broker.http import admin, console, health, join, move, overview, rejoin, rotate
from claudemesh.broker.http.admin import AdminRoutes
from claudemesh.broker.http.admin_auth import AdminAuth
from claudemesh.broker.http.blobs import PREFIX, BlobRoutes
from claudemesh.broker.http.console import ConsoleRoutes, console_of
from claudemesh.broker.http.failures import not_found, reply_to
from claudemesh.broker.http.health import HealthRoutes
from claudemesh.broker.http.join import JoinRoutes
from claudemesh.broker.http.move import MoveRoutes
from claudemesh.broker.http.overview import OverviewRoutes
from claudemesh.broker.http.pages import PageGuard
from claudemesh.broker.http.rejoin import RejoinRoutes
from claudemesh.broker.http.rotate import RotateRoutes
from claudemesh.broker.ws.listener import Listener
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.web.asgi import App, Receive, Scope, Send
from claudemesh.runtime.web.dispatch import Dispatcher, Group
from claudemesh.runtime.web.errors import refused
from claudemesh.runtime.web.replies import respond
from claudemesh.runtime.web.routes import Route, ServeOptions

ROUTES = (
    *join.ROUTES,
    *rejoin.ROUTES,
    *rotate.ROUTES,
    *move.ROUTES,
    *admin.ROUTES,
    *overview.ROUTES,
    *health.ROUTES,
    *console.ROUTES,
)


def build_app(context: Context, listener: Listener) -> App:
    """Return the ASGI app of a broker."""
    pages = PageGuard(context.settings)
    browsers = console_of(context)
    auth = AdminAuth(context.admin_token, context.clock, browsers)

    def authorize(route: Route, scope: Scope) -> None:
        if route.admin:
            auth.require(scope)

    options = ServeOptions(
        reply_to=partial(reply_to, context.degraded),
        not_found=not_found,
        authorize=authorize,
        body_bytes=context.settings.limits.body_bytes,
    )
    groups: tuple[Group, ...] = (
        Group(JoinRoutes(context), join.ROUTES),
        Group(RejoinRoutes(context), rejoin.ROUTES),
        Group(RotateRoutes(context), rotate.ROUTES),
        Group(MoveRoutes(context), move.ROUTES),
        Group(AdminRoutes(context), admin.ROUTES),
        Group(OverviewRoutes(context), overview.ROUTES),
        Group(HealthRoutes(context), health.ROUTES),
    )
    if browsers is not None:
        groups += (Group(ConsoleRoutes(browsers), (*console.ROUTES, *console.PAGE_ROUTES)),)
    dispatch, blobs = Dispatcher(groups, options), BlobRoutes(context)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await listener(scope, receive, send)
            return
        try:
            pages.check(scope["headers"], scope["path"])
        except ProtocolError as error:
            await respond(send, refused(error))
        else:
            serve = blobs if scope["path"].startswith(PREFIX) else dispatch
            await serve(scope, receive, send)

    return app
