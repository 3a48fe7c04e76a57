"""openapi.json says what the routes do: it is made of their table, and these tests hold the two together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from claudemesh.daemon.api.app import OPTIONS, ROUTES
from claudemesh.daemon.api.openapi import document
from claudemesh.runtime.web.dispatch import Dispatcher, Group
from claudemesh.runtime.web.routes import Route

DOCUMENT = document(ROUTES)


def _described() -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}


def test_every_route_is_described_once() -> None:
    """One entry a method and path, and an id of its own for each."""
    assert len(_described()) == len(ROUTES)
    ids = [operation["operationId"] for item in DOCUMENT["paths"].values() for operation in item.values()]
    assert len(set(ids)) == len(ids)


def _schemas(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _schemas(each)


def test_a_field_without_a_value_is_optional_for_generators_too() -> None:
    """A default of null would make it one that is always there, and an object of any fields an empty one."""
    for schema in _schemas(DOCUMENT["components"]):
        assert schema.get("default", 0) is not None
        if schema.get("type") == "object":
            assert schema.keys() & {"properties", "additionalProperties"}


class _Parts:
    """Enough to build the bare routes; no request is made."""

    submit = None


def test_the_dispatcher_serves_exactly_what_is_described() -> None:
    """The app's own tables: no route without a description, no description without a route."""
    dispatcher = Dispatcher([Group(_Parts(), ROUTES)], OPTIONS)
    served = {(method, path) for path, methods in dispatcher.methods.items() for method in methods}
    for path in dispatcher.bare:
        served |= {(method, found) for method, found in _described() if found == path}
    assert served == _described()


def test_the_routes_are_those_of_the_page() -> None:
    """docs/spec/daemon.md, Local API; one message of the inbox; stopping and reloading."""
    assert {f"{method} {path}" for method, path in _described()} == {
        "POST /v1/send",
        "POST /v1/send/batch",
        "POST /v1/topic/post",
        "POST /v1/console/code",
        "POST /v1/console/session",
        "POST /v1/topic/create",
        "POST /v1/topic/subscribe",
        "POST /v1/topic/unsubscribe",
        "GET /v1/topic/list",
        "GET /v1/topic/keyless",
        "POST /v1/topic/delete",
        "POST /v1/topic/rekey",
        "GET /v1/invites",
        "POST /v1/invites/revoke",
        "GET /v1/inbox",
        "GET /v1/inbox/{id}",
        "POST /v1/inbox/ack",
        "GET /v1/outbox",
        "GET /v1/outbox/{id}",
        "POST /v1/outbox/prune",
        "POST /v1/outbox/{id}/requeue",
        "POST /v1/outbox/{id}/drop",
        "POST /v1/keys/rotate",
        "POST /v1/peers/verify",
        "POST /v1/keys/archive/cleanup",
        "GET /v1/peers",
        "GET /v1/profile",
        "POST /v1/sessions",
        "GET /v1/sessions",
        "POST /v1/sessions/{id}/heartbeat",
        "POST /v1/sessions/{id}/push",
        "GET /v1/sessions/{id}/news",
        "POST /v1/sessions/{id}/told",
        "DELETE /v1/sessions/{id}",
        "POST /v1/profile",
        "GET /v1/members",
        "POST /v1/members/revoke",
        "POST /v1/members/role",
        "POST /v1/members/replacement",
        "POST /v1/peers/accept",
        "POST /v1/rename",
        "POST /v1/leave",
        "POST /v1/file/share",
        "GET /v1/file/get",
        "POST /v1/file/get",
        "GET /v1/file/list",
        "POST /v1/file/delete",
        "GET /v1/history",
        "GET /v1/events",
        "GET /v1/health",
        "GET /v1/version",
        "GET /v1/whoami",
        "GET /v1/activity",
        "GET /v1/hook_runs",
        "GET /v1/config/origins",
        "GET /v1/config",
        "GET /v1/compat",
        "GET /v1/metrics",
        "POST /v1/heartbeat",
        "POST /v1/reload",
        "POST /v1/shutdown",
        "GET /v1/openapi.json",
    }


def _schemas(value: Any) -> Any:
    if isinstance(value, dict):
        if "schema" in value:
            yield value["schema"]
        for inner in value.values():
            yield from _schemas(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _schemas(inner)


def test_every_schema_is_valid_and_every_reference_resolves() -> None:
    """A client generator gets through it."""
    schemas = [*_schemas(DOCUMENT["paths"]), *DOCUMENT["components"]["schemas"].values()]
    for schema in schemas:
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert set(re.findall(r"#/components/schemas/\w+", str(DOCUMENT))) <= known


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_route_describes_its_parameters_body_and_answers(route: Route) -> None:
    """The description has exactly the inputs that the endpoint reads."""
    entry = DOCUMENT["paths"][route.path][route.method.lower()]
    by_place = {
        place: {p["name"] for p in entry["parameters"] if p["in"] == place} for place in ("query", "path")
    }
    assert by_place["query"] == {parameter.name for parameter in route.query or ()}
    assert by_place["path"] == set(re.findall(r"{(\w+)}", route.path))
    assert ("requestBody" in entry) == (route.body is not None)
    assert {str(status) for status in route.answers} <= set(entry["responses"])


def test_no_machine_path_is_in_it() -> None:
    """The description is the same on every host."""
    assert str(Path.home()) not in str(DOCUMENT)
