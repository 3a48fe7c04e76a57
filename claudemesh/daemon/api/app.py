"""The API put together: guards, then the bare routes, then the router."""

from __future__ import annotations

from starlette.routing import Route, Router

from claudemesh.daemon.api import events, inbox, outbox, peers, send, status, topics
from claudemesh.daemon.api.core import CoreLike
from claudemesh.daemon.api.errors import not_found, refused
from claudemesh.daemon.api.guards import Guards, Rules
from claudemesh.daemon.api.hooked import HookAccess, HookedCallers
from claudemesh.daemon.api.openapi import described
from claudemesh.daemon.api.routes import Endpoint, Operation
from claudemesh.daemon.api.table import RouteTable
from claudemesh.daemon.api.wire import respond
from claudemesh.runtime.bucket import Bucket
from claudemesh.runtime.http import App, Receive, Scope, Send

OPERATIONS = described(
    (
        *send.OPERATIONS,
        *topics.OPERATIONS,
        *inbox.OPERATIONS,
        *outbox.OPERATIONS,
        *peers.OPERATIONS,
        *events.OPERATIONS,
        *status.OPERATIONS,
    )
)
TABLE = RouteTable(OPERATIONS)


def build_api(
    core: CoreLike,
    rules: Rules | None = None,
    *,
    bucket: Bucket | None = None,
    hooks: HookAccess | None = None,
) -> Guards:
    """Return the ASGI app of a running daemon for one door: its rules, the rate that it bears, and
    who tells whether a caller is a hook."""
    bare = {operation.path: operation.build(core) for operation in OPERATIONS if operation.build is not None}
    app: App = _Dispatch(bare, _router(core))
    if hooks is not None:
        app = HookedCallers(app, hooks, TABLE.for_hooks)
    return Guards(app, rules or Rules(), bucket=bucket, uncounted=TABLE.streams)


def _router(core: CoreLike) -> Router:
    by_path: dict[str, list[Operation]] = {}
    for operation in OPERATIONS:
        if operation.handler is not None:
            by_path.setdefault(operation.path, []).append(operation)
    routes = [Route(path, Endpoint(core, operations)) for path, operations in by_path.items()]
    return Router(routes, redirect_slashes=False, default=_nowhere)


class _Dispatch:
    """The bare routes by their path, all else by the router."""

    def __init__(self, bare: dict[str, App], router: Router) -> None:
        self._bare = bare
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._bare.get(scope["path"])
        if app is not None:
            await app(scope, receive, send)
            return
        # Paths are matched as they came, so that an id may hold an encoded slash.
        raw: bytes = scope["raw_path"]
        await self._router({**scope, "path": raw.decode("ascii")}, receive, send)


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, refused(not_found()))
