"""Dispatch: the ASGI app of a table of routes."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from claudemesh.runtime import aside
from claudemesh.runtime.web.asgi import App, Receive, Scope, Send
from claudemesh.runtime.web.bodies import ClientGone, parse_struct, read_body
from claudemesh.runtime.web.errors import method_not_allowed
from claudemesh.runtime.web.query import parse_query
from claudemesh.runtime.web.replies import Reply, respond
from claudemesh.runtime.web.routes import Handler, Request, Route, RouteTable, ServeOptions, decoded

Methods: TypeAlias = dict[str, tuple[Route, Handler, Any]]


@dataclass(frozen=True, slots=True)
class Group:
    """Routes that share one object: the handlers are called with `owner` as their first argument."""

    owner: Any
    routes: tuple[Route, ...]


class Dispatcher:
    """The ASGI app of some groups of routes: bare routes first, then the others by path and method.

    `HEAD` is not answered unless `answers_head`; uvicorn drops the body of its reply.
    """

    def __init__(self, groups: Iterable[Group], options: ServeOptions, *, answers_head: bool = False) -> None:
        listed = [(group.owner, route) for group in groups for route in group.routes]
        self._options = options
        self._answers_head = answers_head
        self._table = RouteTable(route for _, route in listed)
        self.bare: dict[str, App] = {}
        self.methods: dict[str, Methods] = {}
        for owner, route in listed:
            if route.build is not None:
                self.bare[route.path] = route.build(owner, options)
            elif route.handler is not None:
                self.methods.setdefault(route.path, {})[route.method] = (route, route.handler, owner)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        app = self.bare.get(scope["path"])
        if app is not None:
            await app(scope, receive, send)
            return
        await serve(self._reply(scope, receive), send, self._options)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        options = self._options
        # Templates are matched against the path as it came, so that an id may hold an encoded slash.
        path = scope["raw_path"].decode("ascii")
        found = self._table.find(path)
        if found is None or found[0] not in self.methods:
            raise options.not_found()
        template, values = found
        methods = self.methods[template]
        method = "GET" if self._answers_head and scope["method"] == "HEAD" else scope["method"]
        if method not in methods:
            raise method_not_allowed(methods)
        route, handler, owner = methods[method]
        if options.authorize is not None:
            options.authorize(route, scope)
        request = Request(
            path=path,
            path_values={name: decoded(name, value) for name, value in values.items()},
            query={} if route.query is None else parse_query(scope["query_string"], route.query),
            body=await _body_of(route, receive, options),
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
