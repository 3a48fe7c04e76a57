"""The table of routes: one place for each fact about a route."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import claudemesh
from claudemesh.daemon.api.app import ROUTES, TABLE
from claudemesh.runtime.web.routes import Route

PACKAGE = Path(claudemesh.__file__).parent
# Programs that ask the API and cannot import its table.
CLIENTS = [*(PACKAGE / "cli").rglob("*.py"), *(PACKAGE / "client").rglob("*.py"), PACKAGE / "sdk.py"]
# SDKs of other languages.
SDKS = [*(PACKAGE / "sdks").rglob("*.ts"), *(PACKAGE / "sdks").rglob("*.go")]
# Routes of the broker, asked by the same programs.
_BROKERS = re.compile(r"/v1/(join|admin|invites?|meshes|ws)\b")
_ROUTE = re.compile(r"/v1/[a-z0-9_./-]*")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_counted_under_its_own_name(route: Route) -> None:
    """For any path values, encoded slashes included."""
    assert TABLE.label(re.sub(r"{\w+}", "a%2Fb", route.path)) == route.path


@pytest.mark.parametrize("path", ["/x", "/v1/inbox/", "/v1/inbox/a/b", "/v1/outbox/a/forget", "/v1/inboxes"])
def test_what_is_no_route_is_counted_as_other(path: str) -> None:
    """So that a scanner makes no labels."""
    assert TABLE.label(path) == "other"


def test_the_flags_of_routes() -> None:
    """Streams are uncounted; hooks send and post; health alone may be public; the loopback stops nothing."""
    assert TABLE.uncounted == {"/v1/events"}
    assert TABLE.for_hooks == {"/v1/send", "/v1/topic/post"}
    assert TABLE.public == {"/v1/health"}
    acts = {"/v1/rename", "/v1/leave", "/v1/peers/accept", "/v1/members/revoke", "/v1/members/role"}
    acts |= {"/v1/members/replacement"}
    acts |= {"/v1/peers/verify", "/v1/keys/rotate", "/v1/keys/archive/cleanup"}
    acts |= {"/v1/file/share", "/v1/file/get"}
    acts |= {"/v1/console/code"}
    assert TABLE.socket_only == {"/v1/reload", "/v1/shutdown", *acts}


@pytest.mark.parametrize("source", SDKS, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_route_that_an_sdk_asks_for_exists(source: Path) -> None:
    """Those of other languages spell routes by hand too."""
    asked = {found.rstrip("/.") for found in _ROUTE.findall(source.read_text())}
    unknown = {route for route in asked if not any(f"{one.path}/".startswith(f"{route}/") for one in ROUTES)}
    assert asked and not unknown


@pytest.mark.parametrize("source", CLIENTS, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_route_that_a_client_asks_for_exists(source: Path) -> None:
    """The command line, the fast path and the SDK spell routes by hand."""
    texts = [
        node.value
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    asked = {
        found.rstrip("/.") for text in texts for found in _ROUTE.findall(text) if not _BROKERS.match(found)
    }
    known = [route.path for route in ROUTES]
    # A route may be followed by a path value or a verb that stands in a variable.
    unknown = {route for route in asked if not any(f"{path}/".startswith(f"{route}/") for path in known)}
    assert unknown == set()
