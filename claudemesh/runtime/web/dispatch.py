"""Dispatch: the ASGI app of a table of routes."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from starlette import routing

from claudemesh.runtime import aside
from claudemesh.runtime.web.asgi import App, Receive, Scope, Send
from claudemesh.runtime.web.bodies import ClientGone, parse_struct, read_body
from claudemesh.runtime.web.errors import method_not_allowed
from claudemesh.runtime.web.query import parse_query
from claudemesh.runtime.web.replies import Reply, respond
from claudemesh.runtime.web.routes import Handler, Request, Route, ServeOptions, decoded

Methods: TypeAlias = dict[str, tuple[Route, Handler, Any]]


@dataclass(frozen=True, slots=True)
class Group:
    """Routes that share one object: the handlers are called with `owner` as their first argument."""

    owner: Any
    routes: tuple[Route, ...]


class Dispatcher:
    """The ASGI app of some groups of routes: bare routes first, then the others by Starlette's router.

    `HEAD` is answered by the handler of `GET`; uvicorn drops the body of the reply. A `GET` that acts has no
    `HEAD`, because a client that asks for the head expects that nothing happens.
    """

    def __init__(self, groups: Iterable[Group], options: ServeOptions) -> None:
        self._options = options
        self.bare: dict[str, App] = {}
        self.methods: dict[str, Methods] = {}
        for group in groups:
            for route in group.routes:
                if route.build is not None:
                    self.bare[route.path] = route.build(group.owner, options)
                elif route.handler is not None:
                    entry = (route, route.handler, group.owner)
                    self.methods.setdefault(route.path, {})[route.method] = entry
        self._router = routing.Router(
            [routing.Route(path, _Endpoint(those, options)) for path, those in self.methods.items()],
            redirect_slashes=False,
            default=self._nowhere,
        )

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one HTTP request."""
        app = self.bare.get(scope["path"])
        if app is not None:
            return app(scope, receive, send)
        # Paths are matched before decoding, because an id may hold an encoded slash.
        return self._router({**scope, "path": scope["raw_path"].decode("ascii")}, receive, send)

    async def _nowhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, self._options.reply_to(self._options.not_found()), self._options.write_deadline_s)


class _Endpoint:
    """The ASGI app of one path: its methods, authorization, query and body."""

    def __init__(self, methods: Methods, options: ServeOptions) -> None:
        self._methods = methods
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await serve(self._reply(scope, receive), send, self._options)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        acts = "GET" in self._methods and self._methods["GET"][0].acts
        method = "GET" if scope["method"] == "HEAD" and not acts else scope["method"]
        if method not in self._methods:
            raise method_not_allowed(self._methods, with_head=not acts)
        route, handler, owner = self._methods[method]
        if self._options.authorize is not None:
            self._options.authorize(route, scope)
        request = Request(
            path=scope["path"],
            path_values={name: decoded(name, value) for name, value in scope["path_params"].items()},
            query={} if route.query is None else parse_query(scope["query_string"], route.query),
            body=await _body_of(route, receive, self._options),
            scope=scope,
        )
        return await handler(owner, request)


async def serve(replying: Awaitable[Reply], send: Send, options: ServeOptions) -> None:
    """Send the awaited reply, or the reply to its exception. A client that has gone gets nothing."""
    try:
        reply = await replying
    except ClientGone:
        return
    except Exception as error:
        reply = options.reply_to(error)
    await respond(send, reply, options.write_deadline_s)


async def _body_of(route: Route, receive: Receive, options: ServeOptions) -> Any:
    if route.body is None:
        return None
    raw = await read_body(receive, options.body_bytes, options.body_deadline_s)
    return await aside.run(aside.weight_of(raw), parse_struct, raw, route.body, required=route.body_required)
