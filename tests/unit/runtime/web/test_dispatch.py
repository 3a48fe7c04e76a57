"""Dispatch: which handler gets a request, what is read before it is called, and what its errors become."""

from __future__ import annotations

import msgspec
import pytest

from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.web.asgi import App, Receive, Scope, Send
from claudemesh.runtime.web.dispatch import Dispatcher, Group, serve
from claudemesh.runtime.web.errors import not_found, refused
from claudemesh.runtime.web.query import whole_number
from claudemesh.runtime.web.replies import INTERNAL, Reply, respond
from claudemesh.runtime.web.routes import Request, Route, ServeOptions
from tests.unit.runtime.web.asgi import Exchange, ask


class Named(msgspec.Struct, forbid_unknown_fields=True):
    """A body."""

    name: str


def _reply_to(error: Exception) -> Reply:
    return refused(error) if isinstance(error, ProtocolError) else INTERNAL


def _authorize(route: Route, scope: Scope) -> None:
    if route.admin:
        raise ProtocolError("unauthenticated", "Show the token.")


OPTIONS = ServeOptions(
    reply_to=_reply_to, not_found=lambda: not_found("None."), authorize=_authorize, body_deadline_s=0.05
)


async def shown(owner: str, request: Request) -> Reply:
    name = None if request.body is None else request.body.name
    return Reply(
        200, {"owner": owner, "id": request.path_values.get("id"), "query": request.query, "name": name}
    )


async def broken(owner: str, request: Request) -> Reply:
    raise RuntimeError("secret")


def _bare(owner: str, options: ServeOptions) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, Reply(200, {"bare": owner}))

    return app


ROUTES = (
    Route("GET", "/v1/things", "List", handler=shown, query=(whole_number("limit", 1, 9, 5),)),
    Route("POST", "/v1/things", "Add", handler=shown, body=Named),
    Route("GET", "/v1/things/{id}", "Get", handler=shown),
    Route("POST", "/v1/send", "Send", build=_bare),
    Route("GET", "/v1/fetch", "Fetch", handler=shown, acts=True),
    Route("POST", "/v1/admin", "Rule", handler=shown, body=Named, admin=True),
    Route("GET", "/v1/open", "Open", handler=shown, query=None),
    Route("GET", "/v1/broken", "Break", handler=broken),
)


def app() -> App:
    return Dispatcher([Group("me", ROUTES)], OPTIONS)


async def test_a_handler_gets_its_group_and_the_parsed_request() -> None:
    """Query, path values and body, each by the route's declaration."""
    assert (await ask(app(), "GET", "/v1/things", query=b"limit=7")).json["query"] == {"limit": 7}
    assert (await ask(app(), "GET", "/v1/things/a%2Fb")).json["id"] == "a/b"
    added = await ask(app(), "POST", "/v1/things", b'{"name":"x"}')
    assert added.json == {"owner": "me", "id": None, "query": {}, "name": "x"}


@pytest.mark.parametrize(
    ("method", "path", "query", "raw", "expected"),
    [
        ("GET", "/v1/nothing", b"", b"", (404, "not_found")),
        ("POST", "/v1/things/a", b"", b"", (405, "method_not_allowed")),
        ("GET", "/v1/things", b"limit=0", b"", (400, "invalid_parameter")),
        ("POST", "/v1/things", b"", b'{"nam":1}', (400, "unknown_field")),
        ("GET", "/v1/broken", b"", b"", (500, "internal_error")),
    ],
)
async def test_an_error_is_answered_as_the_server_has_it(
    method: str, path: str, query: bytes, raw: bytes, expected: tuple[int, str]
) -> None:
    """By `reply_to`, for every exception."""
    exchange = await ask(app(), method, path, raw, query)
    assert (exchange.status, exchange.json["error"]) == expected


async def test_bare_routes_come_first() -> None:
    """They parse the request themselves."""
    assert (await ask(app(), "DELETE", "/v1/send")).json == {"bare": "me"}


async def test_authorization_comes_before_the_body() -> None:
    """A body that never comes is not waited for."""
    exchange = Exchange()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/admin",
        "raw_path": b"/v1/admin",
        "query_string": b"x=1",
    }
    await app()(scope, exchange.receive, exchange.send)
    assert (exchange.status, exchange.json["error"]) == (401, "unauthenticated")


async def test_a_body_has_a_deadline() -> None:
    """408 by the server's option."""
    exchange = Exchange()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/things",
        "raw_path": b"/v1/things",
        "query_string": b"",
    }
    await app()(scope, exchange.receive, exchange.send)
    assert (exchange.status, exchange.json["error"]) == (408, "request_timeout")


async def test_a_route_may_ignore_its_query() -> None:
    """For probes, which add what they like."""
    assert (await ask(app(), "GET", "/v1/open", query=b"cache=1&&%ff")).json["query"] == {}


async def test_head_is_answered_by_the_handler_of_get() -> None:
    """A route without GET refuses it."""
    assert (await ask(app(), "HEAD", "/v1/things")).status == 200
    assert (await ask(app(), "HEAD", "/v1/admin")).status == 405


async def test_head_of_a_get_that_acts_is_refused() -> None:
    """Nothing is done by it, and `Allow` has no HEAD."""
    refused_head = await ask(app(), "HEAD", "/v1/fetch")
    assert (refused_head.status, refused_head.json["allowed"]) == (405, "GET")
    assert (await ask(app(), "GET", "/v1/fetch")).status == 200


async def test_a_client_that_has_gone_gets_nothing() -> None:
    """No reply is begun for it."""
    exchange = Exchange({"type": "http.disconnect"})
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/things",
        "raw_path": b"/v1/things",
        "query_string": b"",
    }
    await app()(scope, exchange.receive, exchange.send)
    assert exchange.sent == []


async def test_serve_sends_the_awaited_reply() -> None:
    """Bare routes use it too."""
    exchange = Exchange()

    async def reply() -> Reply:
        return Reply(202, {"a": 1})

    await serve(reply(), exchange.send, OPTIONS)
    assert (exchange.status, exchange.json) == (202, {"a": 1})
