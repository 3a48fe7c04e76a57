"""Route table of a broker. The WebSocket is a bare ASGI app ahead of the HTTP routes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from claudemesh.broker.context import Context
from claudemesh.broker.http.admin import Admin
from claudemesh.broker.http.health import Health
from claudemesh.broker.http.join import Joining
from claudemesh.broker.http.pages import PageGuard
from claudemesh.broker.http.rejoin import Rejoining
from claudemesh.broker.http.replies import Endpoint, not_found, refused, wrong_method
from claudemesh.broker.ws.listener import Listener
from claudemesh.protocol import ProtocolError
from claudemesh.runtime.web.asgi import App, Receive, Scope, Send


def build_app(context: Context, listener: Listener) -> App:
    """Make the ASGI app of a broker."""
    pages = PageGuard(context.settings)
    joining, health = Joining(context), Health(context)
    table: dict[str, dict[str, Endpoint]] = {
        "/v1/join": {"POST": joining.join},
        "/v1/join/challenge": {"GET": joining.challenge},
        "/v1/rejoin": {"POST": Rejoining(context).rejoin},
        "/v1/invites": {"POST": joining.register_invite},
        **Admin(context).table(),
        "/healthz": {"GET": health.healthz},
        "/readyz": {"GET": health.readyz},
        "/metrics": {"GET": health.metrics},
    }

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await listener(scope, receive, send)
            return
        try:
            pages.check(scope["headers"])
        except ProtocolError as error:
            response = refused(error)
        else:
            response = await _answer(table, Request(scope, receive))
        await response(scope, receive, send)

    return app


async def _answer(table: dict[str, dict[str, Endpoint]], request: Request) -> Response:
    methods = table.get(request.scope["path"])
    if methods is None:
        return not_found()
    endpoint = methods.get("GET" if request.method == "HEAD" else request.method)
    if endpoint is None:
        return wrong_method(", ".join(sorted(methods)))
    return await endpoint(request)
