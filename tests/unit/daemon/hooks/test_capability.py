"""Tokens, scopes and loops as plain decisions, every case of the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from claudemesh.daemon.hooks.callers import descends_from
from claudemesh.daemon.hooks.capability import LIFETIME_S, Capabilities, Grant
from claudemesh.daemon.hooks.loop_guard import HOPS, MAX_HOPS, PER_MINUTE, LoopGuard, hops_of
from claudemesh.daemon.outbox.request import SendRequest, Target
from claudemesh.protocol.errors import ProtocolError

DM = {"kind": "dm", "topic": None, "broker_message_id": "B1", "sender_member_id": "alice", "meta": None}
POST = {**DM, "kind": "topic", "topic": "news"}
TO_SENDER, TO_OTHER = Target("dm", name="alice"), Target("dm", name="carol")
TO_NEWS, TO_OTHER_TOPIC, TO_QUEUE = (
    Target("topic", ref="news"),
    Target("topic", ref="x"),
    Target("queue", ref="news"),
)
REPLY, SENDER, NEWS = "reply:event", "dm:send:sender", "topic:news:post"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def grant(event: Mapping[str, Any], *scopes: str, clock: Clock | None = None) -> Grant:
    def is_sender(request: SendRequest, event: Mapping[str, Any]) -> bool:
        return request.target.name == event["sender_member_id"]

    return Grant(
        "on-x", event, scopes, LIFETIME_S, LoopGuard(clock or Clock()), is_sender, lambda hook, scope: None
    )


@pytest.mark.parametrize("event", [DM, POST], ids=["dm", "post"])
@pytest.mark.parametrize("scope", [REPLY, SENDER, NEWS, "topic:x:post"])
@pytest.mark.parametrize("target", [TO_SENDER, TO_OTHER, TO_NEWS, TO_OTHER_TOPIC, TO_QUEUE])
@pytest.mark.parametrize("reply_to", ["B1", "B2", None])
def test_the_table_of_scopes(
    event: Mapping[str, Any], scope: str, target: Target, reply_to: str | None
) -> None:
    """Anything that is not listed here is refused."""
    allowed = (
        (scope == REPLY and reply_to == "B1" and target == TO_SENDER)
        or (scope == REPLY and reply_to == "B1" and target == TO_NEWS and event is POST)
        or (scope == SENDER and target == TO_SENDER)
        or (scope == NEWS and target == TO_NEWS and event is POST)
    )
    given = grant(event, scope)
    request = SendRequest(target, "x", reply_to_id=reply_to)
    if allowed:
        assert given.admit(request).meta == {HOPS: 1}
        assert given.calls == [scope]
    else:
        with pytest.raises(ProtocolError) as caught:
            given.admit(request)
        assert (caught.value.code, given.calls) == ("capability_scope", ["denied"])


def test_a_token_ends_with_its_run_or_after_five_minutes() -> None:
    """An unknown token is refused too."""
    clock = Clock()
    capabilities = Capabilities(clock)
    given = grant(DM, SENDER)
    token = capabilities.issue(given)
    assert capabilities.find(token) is given
    assert capabilities.find(token + "x") is None
    clock.now = LIFETIME_S
    assert capabilities.find(token) is None
    clock.now = 0
    capabilities.revoke(token)
    assert capabilities.find(token) is None


@pytest.mark.parametrize(
    "meta", [None, {}, {HOPS: -1}, {HOPS: True}, {HOPS: "4"}, {HOPS: 1.5}, "text", [HOPS]]
)
def test_anything_but_a_count_is_none(meta: Any) -> None:
    """A peer writes what it likes."""
    assert hops_of(meta) == 0


def test_an_answer_carries_one_hop_more_and_the_last_is_refused() -> None:
    """The caller's own meta is kept, its count is not believed."""
    loops = LoopGuard(Clock())
    for hops in range(MAX_HOPS):
        admitted = loops.admit({**DM, "meta": {HOPS: hops}}, {"k": 1, HOPS: 0})
        assert orjson.loads(admitted["meta_json"]) == {"k": 1, HOPS: hops + 1}
        assert admitted["meta_json"]
    with pytest.raises(ProtocolError, match="hook_loop"):
        loops.admit({**DM, "meta": {HOPS: MAX_HOPS}})


def test_a_peer_that_hides_the_count_meets_a_rate() -> None:
    """So many answers a minute to one sender; others and the next minute are not affected."""
    clock = Clock()
    loops = LoopGuard(clock)
    for _ in range(PER_MINUTE):
        loops.admit(DM)
    with pytest.raises(ProtocolError, match="hook_loop"):
        loops.admit(DM)
    loops.admit({**DM, "sender_member_id": "carol"})
    clock.now = 60
    loops.admit(DM)


def test_descent_is_read_from_the_process_table(tmp_path: Path) -> None:
    """Up to the ancestor, past names with brackets; who is gone counts as a hook."""
    for pid, name, parent in (
        (9, "x) R 1", 8),
        (8, "sh", 7),
        (7, "keeper", 5),
        (5, "daemon", 1),
        (6, "cli", 1),
    ):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} 0 0")
    assert descends_from(9, {7}, tmp_path)
    assert descends_from(7, {7}, tmp_path)
    assert not descends_from(6, {7}, tmp_path)
    assert not descends_from(5, {7}, tmp_path)
    assert descends_from(4, {7}, tmp_path)
