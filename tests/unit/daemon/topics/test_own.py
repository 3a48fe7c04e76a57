"""Topics and subscriptions that a restore of the broker has lost are put back, and wishes survive a crash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from claudemesh.daemon.topics.own import Listed, OwnTopics, RestoreCall, Wish, plan
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.replies import Read
from claudemesh.runtime.conditions import Conditions
from claudemesh.runtime.sidefiles import SideFiles
from tests.support.clock import ManualClock

T = TypeVar("T")

NOW = 1_780_000_000_000
TOPIC, QUEUE = Listed("topic", True), Listed("queue", False)


class Broker:
    """The broker's topics as one member sees them; it can be away."""

    def __init__(self, topics: Mapping[str, Listed] | None = None) -> None:
        self.topics = dict(topics or {"all": TOPIC})
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self.away = False
        self.deleted: list[str] = []

    async def call(self, method: str, params: Mapping[str, Any], read: Read[T]) -> T:
        return read(self.answer(method, params))

    def answer(self, method: str, params: Mapping[str, Any]) -> Any:
        if self.away:
            raise ProtocolError("broker_unavailable", "away")
        if method == "topic_list":
            items = [
                {
                    "topic": name,
                    "mode": listed.mode,
                    "subscribed": listed.subscribed,
                    "subscribers": int(listed.subscribed),
                }
                for name, listed in self.topics.items()
            ]
            return {"items": items}
        if method == "topics_deleted":
            return {"items": [name for name in params["topics"] if name in self.deleted]}
        self.calls.append((method, params))
        topic = params["topic"]
        known = self.topics.get(topic)
        if method == "topic_create":
            self.topics.setdefault(topic, Listed(params.get("mode", "topic"), False))
            return {"topic": topic, "mode": self.topics[topic].mode, "created": known is None}
        if known is None:
            raise ProtocolError("topic_not_found", "no such topic")
        self.topics[topic] = Listed(known.mode, method == "topic_subscribe")
        return {"topic": topic, "subscribed": method == "topic_subscribe"}


def opened(folder: Path) -> OwnTopics:
    """The topics of a host, as its file says."""
    clock = ManualClock(wall_ms=NOW)
    topics = OwnTopics(folder / "topic_subscriptions.json", clock, SideFiles(folder, Conditions(clock)).write)
    topics.load()
    return topics


@pytest.mark.parametrize(
    ("wish", "listed", "everything", "methods"),
    [
        (Wish("topic", created=True), None, False, ["topic_create"]),
        (Wish("queue", subscribed=True), None, False, ["topic_create", "topic_subscribe"]),
        (Wish("topic", subscribed=True), Listed("topic", False), False, ["topic_subscribe"]),
        (Wish("topic", subscribed=True), TOPIC, False, []),
        (Wish("topic", subscribed=True), TOPIC, True, ["topic_subscribe"]),
        (Wish("topic", subscribed=False), TOPIC, False, ["topic_unsubscribe"]),
        (Wish("topic", subscribed=False), None, True, []),
        (Wish("topic"), TOPIC, True, []),
        (Wish("topic", created=True), Listed("topic", False), False, []),
    ],
)
def test_what_differs_is_put_back(
    wish: Wish, listed: Listed | None, everything: bool, methods: list[str]
) -> None:
    """Created before subscribed; what the user never said stays as the broker has it."""
    found = {} if listed is None else {"t": listed}
    steps = plan({"t": wish}, found, everything=everything)
    assert [step.method for step in steps] == methods
    assert all(isinstance(step, RestoreCall) and step.topic == "t" for step in steps)


async def test_a_restored_broker_gets_topics_and_subscriptions_back(tmp_path: Path) -> None:
    """After a restart of the daemon too; a lost subscription names the time at which it was in place."""
    topics, broker = opened(tmp_path), Broker()
    await topics.put_back(broker.call, NOW)
    await topics.create(broker.call, "plans", None)
    await topics.create(broker.call, "builds", "queue")
    await topics.subscribe(broker.call, "plans")
    await topics.subscribe(broker.call, "builds")
    await topics.unsubscribe(broker.call, "all")
    topics.link_down()
    restored = Broker()
    await opened(tmp_path).put_back(restored.call, NOW + 1000)
    assert restored.topics == {
        "all": Listed("topic", False),
        "plans": Listed("topic", True),
        "builds": Listed("queue", True),
    }
    since = {
        params["topic"]: params.get("since") for method, params in restored.calls if "subscribe" in method
    }
    assert since == {"all": None, "plans": NOW - 600_000, "builds": None}
    restored.calls.clear()
    await opened(tmp_path).put_back(restored.call, NOW + 2000)
    assert restored.calls == []


async def test_a_topic_that_was_deleted_is_not_put_back(tmp_path: Path) -> None:
    """Topics that a restore has lost are put back beside it."""
    topics, broker = opened(tmp_path), Broker()
    await topics.put_back(broker.call, NOW)
    for name in ("plans", "builds"):
        await topics.create(broker.call, name, None)
        await topics.subscribe(broker.call, name)
    later = Broker()
    later.deleted = ["plans", "all"]
    await opened(tmp_path).put_back(later.call, NOW + 1000)
    assert later.topics.keys() == {"all", "builds"}
    forgetful = Broker()
    await opened(tmp_path).put_back(forgetful.call, NOW + 2000)
    assert forgetful.topics.keys() == {"all", "builds"}


async def test_a_wish_that_the_broker_never_heard_is_carried_out_later(tmp_path: Path) -> None:
    """The process died, or the link did, between the file and the broker."""
    topics, broker = opened(tmp_path), Broker({"all": TOPIC, "plans": Listed("topic", False)})
    broker.away = True
    with pytest.raises(ProtocolError):
        await topics.subscribe(broker.call, "plans")
    broker.away = False
    await opened(tmp_path).put_back(broker.call, NOW)
    assert broker.topics["plans"].subscribed


async def test_a_refused_subscription_is_no_wish(tmp_path: Path) -> None:
    """There is no such topic, and none is made of it later."""
    topics, broker = opened(tmp_path), Broker()
    with pytest.raises(ProtocolError, match="topic_not_found"):
        await topics.subscribe(broker.call, "typo")
    await opened(tmp_path).put_back(broker.call, NOW)
    assert set(broker.topics) == {"all"}


async def test_a_member_that_was_lost_renews_every_subscription(tmp_path: Path) -> None:
    """The broker subscribed it to `all` again, after posts that it has missed."""
    topics, broker = opened(tmp_path), Broker()
    await topics.put_back(broker.call, NOW)
    topics.link_down()
    topics.member_lost()
    again = opened(tmp_path)
    await again.put_back(broker.call, NOW + 1000)
    assert broker.calls == [("topic_subscribe", {"topic": "all", "since": NOW - 600_000})]
    await again.put_back(broker.call, NOW + 2000)
    assert len(broker.calls) == 1


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"topics":{"A B":{}}}', b'{"topics":{},"seen_ms":"x"}', b"\xff"]
)
async def test_a_damaged_file_is_no_reason_to_stop(tmp_path: Path, content: bytes) -> None:
    """The broker's list is taken over."""
    path = tmp_path / "topic_subscriptions.json"
    path.write_bytes(content)
    path.chmod(0o600)
    topics, broker = opened(tmp_path), Broker()
    await topics.put_back(broker.call, NOW)
    assert broker.calls == []
    assert path.stat().st_mode & 0o777 == 0o600
