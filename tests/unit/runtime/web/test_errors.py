"""Errors as replies: status, the JSON of the case, and the headers that belong to it."""

from __future__ import annotations

from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.web.errors import HttpRefusal, method_not_allowed, not_found, refused


def test_a_refusal_has_its_own_status_and_headers() -> None:
    """Unlike other errors, whose status goes with the code."""
    reply = refused(HttpRefusal(418, "teapot", "Take coffee.", headers=((b"x", b"y"),), cups=2))
    assert (reply.status, reply.headers) == (418, ((b"x", b"y"),))
    assert reply.body == {"error": "teapot", "message": "Take coffee.", "cups": 2}


def test_an_error_that_names_a_wait_has_retry_after() -> None:
    """In whole seconds, rounded up."""
    reply = refused(ProtocolError("rate_limited", "Wait.", retry_after_ms=1001))
    assert (reply.status, dict(reply.headers)) == (429, {b"retry-after": b"2"})
    assert refused(ProtocolError("rate_limited", "Wait.")).headers == ()


def test_405_names_the_methods() -> None:
    """In the header `Allow`, in the sentence, and as a field."""
    reply = refused(method_not_allowed(["POST", "GET"]))
    assert (b"allow", b"GET, HEAD, POST") in reply.headers
    assert reply.body == {
        "error": "method_not_allowed",
        "message": "Use GET, HEAD, POST on this route.",
        "allowed": "GET, HEAD, POST",
    }


def test_404_tells_where_routes_are_listed() -> None:
    """Each server has its own hint."""
    assert not_found("See the pages.").message == "There is no such route. See the pages."
