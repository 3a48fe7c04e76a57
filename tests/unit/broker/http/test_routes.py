"""The broker's table of routes: paths, methods and the flag for the admin token."""

from __future__ import annotations

from claudemesh.broker.http.routes import ROUTES


def test_the_routes_are_those_of_the_page() -> None:
    """docs/spec/broker.md, Operation."""
    assert sorted((route.path, route.method) for route in ROUTES) == [
        ("/healthz", "GET"),
        ("/metrics", "GET"),
        ("/readyz", "GET"),
        ("/v1/admin/audit", "GET"),
        ("/v1/admin/connections", "GET"),
        ("/v1/admin/console/code", "POST"),
        ("/v1/admin/invites", "GET"),
        ("/v1/admin/invites/revoke", "POST"),
        ("/v1/admin/jobs", "GET"),
        ("/v1/admin/jobs/run", "POST"),
        ("/v1/admin/members", "GET"),
        ("/v1/admin/members/revoke", "POST"),
        ("/v1/admin/meshes", "GET"),
        ("/v1/admin/meshes", "POST"),
        ("/v1/admin/meshes/set", "POST"),
        ("/v1/admin/state", "GET"),
        ("/v1/console/session", "POST"),
        ("/v1/invites", "POST"),
        ("/v1/join", "POST"),
        ("/v1/join/challenge", "GET"),
        ("/v1/meshes/move", "POST"),
        ("/v1/rejoin", "POST"),
        ("/v1/rotate", "POST"),
    ]


def test_every_admin_route_requires_the_token_and_no_other_does() -> None:
    """The flag, not the path, is what the server looks at."""
    assert {route.path for route in ROUTES if route.admin} == {
        route.path for route in ROUTES if route.path.startswith("/v1/admin/")
    }


def test_every_post_has_a_body_and_no_get_has_one() -> None:
    """A body is read and checked by the dispatcher, never by a handler."""
    assert all((route.body is not None) == (route.method == "POST") for route in ROUTES)
