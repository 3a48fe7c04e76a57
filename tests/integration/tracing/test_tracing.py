"""Traces of messages over two hosts and a broker, with a collector that takes their spans."""

from __future__ import annotations

import secrets
from collections.abc import Generator
from typing import Any

import pytest

from tests.support.collector import Collector, collector
from tests.support.processes import Daemon, Mesh, mesh, until

_TRACED = {
    "claudemesh request",
    "claudemesh outbox",
    "claudemesh link",
    "claudemesh delivery",
    "claudemesh hook",
}


@pytest.fixture(scope="module")
def collected() -> Generator[Collector]:
    """The collector of alice, bob and the broker."""
    with collector() as made:
        yield made


@pytest.fixture(scope="module")
def three(collected: Collector) -> Generator[Mesh]:
    """Alice and bob have the collector; carol has none. Bob has a hook that keeps its TRACEPARENT."""
    prefix = ["env", f"CLAUDEMESH_BROKER_OTEL_ENDPOINT={collected.url}"]
    with mesh("alice", "bob", "carol", start=False, broker_prefix=prefix) as made:
        for name in ("alice", "bob"):
            with (made.daemons[name].root / "config.toml").open("a") as config:
                config.write(f'[metrics]\notel_endpoint = "{collected.url}"\n')
        hooks = made.daemons["bob"].root / "hooks"
        hooks.mkdir(mode=0o700, exist_ok=True)
        (hooks / "hooks.toml").write_text("[on-dm]\n")
        script = hooks / "on-dm"
        script.write_text(f'#!/bin/sh\necho "$TRACEPARENT" >> {made.root}/hooks\n')
        script.chmod(0o700)
        made.heal()
        yield made


def _new_trace(flags: str = "01") -> tuple[str, str]:
    """A trace of a program, and the `traceparent` of its span."""
    trace_id = secrets.token_hex(16)
    return trace_id, f"00-{trace_id}-{secrets.token_hex(8)}-{flags}"


def _send(daemon: Daemon, text: str, traceparent: str, **more: Any) -> dict[str, Any]:
    body = {"to": "bob", "message": text, **more}
    status, answer = daemon.request("POST", "/v1/send", body, {"traceparent": traceparent})
    assert status in (200, 202), answer
    found: dict[str, Any] = answer
    return found


def _received(made: Mesh, sent: dict[str, Any]) -> dict[str, Any]:
    bob, mine = made.daemons["bob"], sent["client_message_id"]
    found: dict[str, Any] = until(
        lambda: next((item for item in bob.inbox() if item["client_message_id"] == mine), None), "bob has it"
    )
    return found


def _hook_of(made: Mesh, trace_id: str) -> str:
    """Wait for the hook of a message; return its TRACEPARENT."""
    told = made.root / "hooks"

    def mine() -> str | None:
        lines = told.read_text().splitlines() if told.exists() else ()
        return next((line for line in lines if trace_id in line), None)

    found: str = until(mine, "the hook has run")
    return found


def test_a_traced_send_is_one_trace_from_the_program_to_the_hook(three: Mesh, collected: Collector) -> None:
    """Each span hangs below the one of the request, and that one below the program's."""
    trace_id, traceparent = _new_trace()
    sent = _send(three.daemons["alice"], "the secret text", traceparent, client_message_id="traced-1")
    received = _received(three, sent)["meta"]["traceparent"]
    in_hook = _hook_of(three, trace_id)
    until(lambda: {span["name"] for span in collected.of_trace(trace_id)} >= _TRACED, "all spans have come")
    spans = {span["name"]: span for span in collected.of_trace(trace_id)}
    assert len(collected.of_trace(trace_id)) == len(_TRACED)
    request = spans.pop("claudemesh request")
    assert request["parentSpanId"] == traceparent.split("-")[2]
    assert request["attributes"]["http.response.status_code"] == "202"
    assert received == f"00-{trace_id}-{request['spanId']}-01"
    assert {span["parentSpanId"] for span in spans.values()} == {request["spanId"]}
    assert in_hook == f"00-{trace_id}-{spans['claudemesh hook']['spanId']}-01"
    ids = {span["attributes"].get("messaging.message.id", "traced-1") for span in (request, *spans.values())}
    assert ids == {"traced-1"}
    assert {span["service"] for span in (request, *spans.values())} == {"claudemesh-daemon"}
    assert "the secret text" not in collected.raw


def test_the_broker_has_spans_without_content_and_without_names(three: Mesh, collected: Collector) -> None:
    """It cannot open what it passes on, so its spans are traces of their own."""
    _received(three, _send(three.daemons["alice"], "x", "none"))
    wanted = {"claudemesh accept", "claudemesh acknowledge"}

    def of_broker() -> list[dict[str, Any]]:
        return [span for span in list(collected.spans) if span["service"] == "claudemesh-broker"]

    until(lambda: {span["name"] for span in of_broker()} == wanted, "the broker's spans have come")
    assert all(set(span["attributes"]) == {"claudemesh.count"} for span in of_broker())
    assert not any("parentSpanId" in span for span in of_broker())
    assert "alice" not in collected.raw


def test_a_traceparent_of_a_meta_is_traced_too(three: Mesh, collected: Collector) -> None:
    """The receiver has the rest of the meta as it was."""
    trace_id, traceparent = _new_trace()
    meta = {"n": 1, "traceparent": traceparent}
    _, sent = three.daemons["alice"].request("POST", "/v1/send", {"to": "bob", "message": "x", "meta": meta})
    received = _received(three, sent)["meta"]
    assert received["n"] == 1
    assert trace_id in received["traceparent"]
    until(
        lambda: "claudemesh delivery" in {span["name"] for span in collected.of_trace(trace_id)}, "its spans"
    )


def test_a_message_to_the_own_host_is_traced_too(three: Mesh, collected: Collector) -> None:
    """It meets no outbox and no link."""
    trace_id, traceparent = _new_trace()
    sent = _send(three.daemons["bob"], "x", traceparent)
    assert trace_id in _received(three, sent)["meta"]["traceparent"]
    wanted = {"claudemesh request", "claudemesh hook"}
    until(lambda: {span["name"] for span in collected.of_trace(trace_id)} == wanted, "both have come")


def test_a_daemon_without_a_collector_passes_a_trace_on(three: Mesh, collected: Collector) -> None:
    """The receiver continues it."""
    trace_id, traceparent = _new_trace()
    received = _received(three, _send(three.daemons["carol"], "x", traceparent))
    assert received["meta"] == {"traceparent": traceparent}
    until(lambda: len(collected.of_trace(trace_id)) == 2, "delivery and hook")
    assert {span["parentSpanId"] for span in collected.of_trace(trace_id)} == {traceparent.split("-")[2]}


def test_what_is_not_sampled_travels_without_spans_and_what_is_invalid_is_ignored(
    three: Mesh, collected: Collector
) -> None:
    """A later traced send has its spans at the collector, so theirs would be there too."""
    quiet_id, quiet = _new_trace("00")
    assert _received(three, _send(three.daemons["alice"], "x", quiet))["meta"] == {"traceparent": quiet}
    assert _hook_of(three, quiet_id) == quiet
    assert _received(three, _send(three.daemons["alice"], "x", f"00-{'0' * 32}-1-01"))["meta"] is None
    later_id, later = _new_trace()
    _send(three.daemons["alice"], "x", later)
    until(lambda: {span["name"] for span in collected.of_trace(later_id)} >= _TRACED, "all spans have come")
    assert collected.of_trace(quiet_id) == []


def test_a_retry_within_another_trace_is_the_same_send(three: Mesh) -> None:
    """The trace is no part of what an id stands for, so this is no conflict."""
    alice = three.daemons["alice"]
    _send(alice, "x", _new_trace()[1], client_message_id="same")
    until(lambda: alice.request("GET", "/v1/outbox/same")[1]["status"] == "done", "it is sent")
    assert _send(alice, "x", _new_trace()[1], client_message_id="same")["duplicate"] is True


def test_spans_wait_for_a_collector_that_is_busy(three: Mesh, collected: Collector) -> None:
    """They are offered again."""
    collected.refusals = [503, 503]
    trace_id, traceparent = _new_trace()
    _send(three.daemons["alice"], "x", traceparent)
    until(lambda: {span["name"] for span in collected.of_trace(trace_id)} >= _TRACED, "all spans have come")
    assert collected.refusals == []
