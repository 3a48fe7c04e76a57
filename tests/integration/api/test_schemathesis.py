"""Generated requests against the daemon's own description: no 500, nothing undescribed, no row."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from claudemesh.daemon.api.app import ROUTES
from claudemesh.daemon.api.openapi import document
from tests.integration.api.served import BrokerAnswers, Served, served
from tests.support.background import Background, background

# The daemon's thread draws its reconnect jitter from `random` meanwhile; the strategies here do not.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

_ROW = {"topic": "all", "mode": "topic", "subscribed": True, "subscribers": 1, "created_at": 0}
_BROKER = {
    "topic_create": {"topic": "all", "mode": "topic", "created": False},
    "topic_subscribe": {},
    "topic_unsubscribe": {},
    "topic_rekey": {"topic": "all", "rekey_wanted": True},
    "topic_key": {
        "topic": "all",
        "mode": "topic",
        "current": None,
        "epochs": [],
        "rekey_wanted": False,
        "wraps": [],
        "missing": [],
        "missing_more": False,
    },
    "topic_list": {"items": [_ROW]},
    "topic_delete": {"topic": "all", "mode": "topic", "dropped": 0},
    "profile": {},
    "invite_list": {"items": []},
    "invite_revoke": {},
}
_CHECKS = (
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


@asynccontextmanager
async def _daemon() -> AsyncGenerator[Served]:
    with tempfile.TemporaryDirectory(prefix="cm-") as folder:
        async with served(Path(folder), link=BrokerAnswers(_BROKER), tcp=True) as daemon:
            await daemon.receive("hi", "there")
            yield daemon


@pytest.fixture(scope="module")
def running() -> Generator[Background[Served]]:
    """One daemon for all generated requests; schemathesis speaks plain HTTP and waits for each answer."""
    with background(_daemon()) as made:
        yield made


def _schema() -> Any:
    config = schemathesis.Config.from_dict({"generation": {"mode": "all"}})
    schema = schemathesis.openapi.from_dict(document(ROUTES), config=config)
    # A stream that stays open is no answer to wait for; tests/integration/api/test_events.py has it.
    # A rotation of keys asks a real broker; tests/crash/test_rotation.py has it.
    return schema.exclude(path="/v1/events").exclude(path="/v1/keys/rotate")


schema = _schema()


@schema.parametrize()
@hypothesis.settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_the_daemon_does_what_it_describes(case: Any, running: Background[Served]) -> None:
    """For any request: no fault, and only statuses, types and shapes that openapi.json names."""
    daemon = running.value
    _shorten_wait(case)
    before = len(running.run(daemon.rows()))
    with requests.Session() as session:
        session.headers["Host"] = "localhost"
        response = case.call(session=session, base_url=f"http://127.0.0.1:{daemon.port}")
    case.validate_response(response, checks=_CHECKS)
    # Some routes ask the broker, which is away.
    assert response.status_code < 500 or json.loads(response.content)["error"] == "broker_unavailable"
    if response.status_code >= 400:
        assert json.loads(response.content)["message"]
        assert len(running.run(daemon.rows())) == before


def _shorten_wait(case: Any) -> None:
    """A wait that is valid lasts as long as it says, for there is no broker: keep it, but short."""
    wait_ms = (case.query or {}).get("wait_ms")
    if str(wait_ms).isascii() and str(wait_ms).isdigit() and int(wait_ms) <= 30_000:
        case.query["wait_ms"] = int(wait_ms) % 10


def test_generated_input_is_of_both_kinds() -> None:
    """The test above would mean little if only valid, or only wrong, requests were made."""
    modes = schema.config.generation.modes
    assert set(modes) == {GenerationMode.POSITIVE, GenerationMode.NEGATIVE}
