"""Request metrics: every request is counted once, by route, status and transport."""

from __future__ import annotations

import pytest

from claudemesh.runtime.web.asgi import Receive, Scope, Send, transport_of
from claudemesh.runtime.web.replies import Reply, respond
from claudemesh.runtime.web.request_metrics import RequestMetrics
from claudemesh.runtime.web.routes import Route, RouteTable
from tests.unit.runtime.web.asgi import Exchange, ask

TABLE = RouteTable(
    [Route("GET", "/v1/things/{id}", "Get"), Route("GET", "/v1/stream", "Follow", counted=False)]
)


class Counted:
    """The recorded counts."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, int, str, bool]] = []

    def requested(self, endpoint: str, status: int, transport: str, seconds: float | None) -> None:
        self.requests.append((endpoint, status, transport, seconds is not None))


async def _answering(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, Reply(404 if scope["path"] == "/" else 200, {}))


async def _failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError


async def test_a_request_is_counted_by_its_route() -> None:
    """Streams are counted without a duration; a path without a route is `other`."""
    counted = Counted()
    app = RequestMetrics(_answering, counted, "unix", TABLE)
    for path in ("/v1/things/secret", "/v1/stream", "/"):
        await ask(app, "GET", path)
    assert counted.requests == [
        ("/v1/things/{id}", 200, "unix", True),
        ("/v1/stream", 200, "unix", False),
        ("other", 404, "unix", True),
    ]


async def test_a_request_without_a_reply_is_counted_as_0() -> None:
    """Its client had gone, or the app failed."""
    counted = Counted()
    with pytest.raises(RuntimeError):
        await ask(RequestMetrics(_failing, counted, "tcp", TABLE), "GET", "/v1/things/a")
    assert counted.requests == [("/v1/things/{id}", 0, "tcp", True)]


async def test_the_transport_is_found_through_the_middleware() -> None:
    """A deadline of a write must be able to abort the connection."""
    found = []

    class Cycle(Exchange):
        transport = "the transport"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(transport_of(send))

    cycle = Cycle()
    scope = {"type": "http", "raw_path": b"/"}
    await RequestMetrics(app, Counted(), "unix", TABLE)(scope, cycle.receive, cycle.send)
    assert found == ["the transport"]
