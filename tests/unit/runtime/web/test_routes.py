"""The table of routes: templates, labels and flags."""

from __future__ import annotations

import pytest

from claudemesh.runtime.web.errors import HttpRefusal
from claudemesh.runtime.web.routes import Request, Route, RouteTable, decoded

TABLE = RouteTable(
    [
        Route("GET", "/v1/things", "List"),
        Route("GET", "/v1/things/{id}", "Get", public=True),
        Route("POST", "/v1/things/{id}/parts/{part}", "Set", for_hooks=True, socket_only=True),
        Route("GET", "/v1/stream", "Follow", counted=False),
    ]
)


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/v1/things", "/v1/things"),
        ("/v1/things/a%2Fb", "/v1/things/{id}"),
        ("/v1/things/a/parts/b", "/v1/things/{id}/parts/{part}"),
    ],
)
def test_a_path_is_labelled_by_its_template(path: str, template: str) -> None:
    """A label never has an id or a name."""
    assert TABLE.label(path) == template


@pytest.mark.parametrize(
    "path", ["/", "/v1/things/", "/v1/things/a/parts", "/v1/things/a/parts/", "/v1/thingsx"]
)
def test_a_path_without_a_route_is_other(path: str) -> None:
    """So that a scanner creates no label."""
    assert TABLE.label(path) == "other"


def test_flags_are_asked_by_path() -> None:
    """Each flag of the table is a set of paths."""
    assert TABLE.public == {"/v1/things/{id}"}
    assert TABLE.for_hooks == TABLE.socket_only == {"/v1/things/{id}/parts/{part}"}
    assert TABLE.uncounted == {"/v1/stream"}


def test_a_path_value_is_decoded_strictly() -> None:
    """400 for bytes that are not UTF-8; the parameter is named."""
    assert decoded("id", "a%2Fb") == "a/b"
    with pytest.raises(HttpRefusal) as caught:
        decoded("id", "%ff")
    assert (caught.value.status, caught.value.fields) == (400, {"field": "id"})


def test_the_next_page_keeps_the_query() -> None:
    """But for the cursor, and for parameters that were not given."""
    request = Request("/v1/things", {}, {"limit": 2, "unread": True, "topic": None, "after": "1"})
    assert request.following("a b") == b'</v1/things?limit=2&unread=true&after=a+b>; rel="next"'
