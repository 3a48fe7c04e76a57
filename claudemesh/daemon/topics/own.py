"""Topics and subscriptions that this host wants: kept on disk, and restored at the broker.

`topic_subscriptions.json` holds what this host has created, subscribed to and unsubscribed from. Only this
host changes its subscriptions, so a broker that lists others was restored from an older copy. At each
link-up the differences are put back by idempotent calls.

A post that is accepted before its subscriber is back is not delivered to it. So a subscription that is put
back names the broker's time at which it was last in place, and the broker delivers the posts since then.

Crash story: the wish is on disk before the broker is asked. After a crash the next link-up applies it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import replace

from claudemesh.daemon.calls import Ask, whole_topic_list
from claudemesh.protocol import replies
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import check_topic
from claudemesh.protocol.replies import TopicList, TopicMade, TopicRemoved
from claudemesh.protocol.wire import TOPIC_MODES
from claudemesh.runtime.clock import Clock
from claudemesh.runtime.files import UnsafeFile, read_private, write_atomic
from claudemesh.runtime.logs import get_logger
from claudemesh.runtime.sidefiles import WriteFile

log = get_logger("topics")

# Margin for a change of the broker's clock between the two states of its database. Receivers recognise
# repeats.
_MARGIN_MS = 600_000
_NAMES_PER_CALL = 256


class Wish(Struct, frozen=True):
    """The wanted state of one topic. `subscribed` is None when the user has not chosen."""

    mode: str
    created: bool = False
    subscribed: bool | None = None


class Listed(Struct, frozen=True):
    """A topic as the broker lists it."""

    mode: str
    subscribed: bool


class RestoreCall(Struct, frozen=True):
    """One call to the broker that puts a difference back."""

    method: str
    topic: str
    mode: str


def plan(
    wishes: Mapping[str, Wish], listed: Mapping[str, Listed], *, everything: bool
) -> Sequence[RestoreCall]:
    """Return the calls that bring the broker's list to the wanted state.

    `everything`: the member itself was lost, so each subscription is renewed, also where one is listed.
    """
    steps: list[RestoreCall] = []
    for topic, wish in wishes.items():
        found = listed.get(topic)
        if found is None and (wish.created or wish.subscribed):
            steps.append(RestoreCall("topic_create", topic, wish.mode))
        is_subscribed = found is not None and found.subscribed
        if wish.subscribed and (everything or not is_subscribed):
            steps.append(RestoreCall("topic_subscribe", topic, wish.mode if found is None else found.mode))
        elif wish.subscribed is False and is_subscribed:
            steps.append(RestoreCall("topic_unsubscribe", topic, wish.mode))
    return steps


class OwnTopics:
    """Creates topics and changes subscriptions at the broker, and keeps each wish on the disk."""

    def __init__(self, path: Path, clock: Clock, write: WriteFile) -> None:
        self._path = path
        self._clock = clock
        self._write = write
        self._wishes: dict[str, Wish] = {}
        # The broker's time at which the subscriptions were last in place.
        self._seen_ms = 0
        self._offset_ms: float | None = None
        self._is_member_lost = False

    def load(self) -> None:
        """Read the file. A missing or damaged one counts as empty, and the broker's list is adopted."""
        try:
            data = orjson.loads(read_private(self._path))
            self._wishes = {check_topic(name): _wish_of(item) for name, item in data["topics"].items()}
            self._seen_ms = int(data["seen_ms"])
            self._is_member_lost = data["member_lost"] is True
        except FileNotFoundError:
            return
        except (OSError, UnsafeFile, ProtocolError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._wishes = {}
            log.warning("topics_not_loaded", path=str(self._path), error=repr(error))

    async def create(self, call: Ask, topic: str, mode: str | None) -> TopicMade:
        """Create a topic; return the broker's answer. After a `ProtocolError` nothing has changed here."""
        params = {"topic": topic} | ({} if mode is None else {"mode": mode})
        answer = await call("topic_create", params, replies.topic_made)
        known, mode = self._wishes.get(topic), answer.mode
        created = answer.created or (known is not None and known.created)
        self._wish(topic, replace(known or Wish(mode), mode=mode, created=created))
        return answer

    async def delete(self, call: Ask, topic: str, *, force: bool) -> TopicRemoved:
        """Delete a topic at the broker, and the wish for it. After a `ProtocolError` the wish stays."""
        answer = await call("topic_delete", {"topic": topic, "force": force}, replies.topic_removed)
        self._take_back(topic, None)
        return answer

    async def subscribe(self, call: Ask, topic: str) -> None:
        """Subscribe. A topic that does not exist is refused, and the wish is taken back."""
        await self._set(call, topic, "topic_subscribe", subscribed=True)

    async def unsubscribe(self, call: Ask, topic: str) -> None:
        """Remove the subscription."""
        await self._set(call, topic, "topic_unsubscribe", subscribed=False)

    async def _set(self, call: Ask, topic: str, method: str, *, subscribed: bool) -> None:
        before = self._wishes.get(topic)
        self._wish(topic, replace(before or Wish("topic"), subscribed=subscribed))
        try:
            await call(method, {"topic": topic}, replies.nothing)
        except ProtocolError as error:
            if error.code != "broker_unavailable":
                self._take_back(topic, before)
            raise

    def _take_back(self, topic: str, before: Wish | None) -> None:
        if before is None:
            self._wishes.pop(topic, None)
        else:
            self._wishes[topic] = before
        self._save()

    def member_lost(self) -> None:
        """Note that the broker has lost this member: every subscription is renewed once it is back."""
        if not self._is_member_lost:
            self._is_member_lost = True
            self._save()

    async def put_back(self, call: Ask, server_time_ms: int) -> None:
        """Bring the broker's list to the wanted state, then adopt its other subscriptions. Raise
        `ProtocolError`."""
        listed = _listed(await whole_topic_list(call))
        await self._drop_deleted(call, listed)
        steps = plan(self._wishes, listed, everything=self._is_member_lost)
        if steps:
            log.warning(
                "topics_put_back",
                steps=[f"{step.method} {step.topic}" for step in steps],
                since_ms=self._seen_ms,
            )
        for step in steps:
            await self._take(call, step)
        for topic, found in listed.items():
            known = self._wishes.get(topic, Wish(found.mode))
            if known.subscribed is None and found.subscribed:
                known = replace(known, subscribed=True)
            if topic in self._wishes or found.subscribed:
                self._wishes[topic] = replace(known, mode=found.mode)
        self._is_member_lost = False
        self._offset_ms = server_time_ms - self._clock.monotonic() * 1000
        self._seen()

    async def _drop_deleted(self, call: Ask, listed: Mapping[str, Listed]) -> None:
        """Drop the wishes for topics that a member has deleted, which no restore has lost."""
        missing = sorted(
            topic
            for topic, wish in self._wishes.items()
            if topic not in listed and (wish.created or wish.subscribed)
        )
        for start in range(0, len(missing), _NAMES_PER_CALL):
            params = {"topics": missing[start : start + _NAMES_PER_CALL]}
            try:
                deleted = await call("topics_deleted", params, replies.topics_deleted)
            except ProtocolError as error:
                if error.code != "unknown_method":
                    raise
                # An older broker deletes no topics.
                return
            for topic in set(deleted) & set(params["topics"]):
                log.info("topic_deleted_meanwhile", topic=topic)
                self._take_back(topic, None)

    def link_down(self) -> None:
        """Note the time until which the subscriptions were in place."""
        if self._offset_ms is not None:
            self._seen()
            self._offset_ms = None

    def _seen(self) -> None:
        if self._offset_ms is not None:
            self._seen_ms = int(self._offset_ms + self._clock.monotonic() * 1000)
        self._save()

    async def _take(self, call: Ask, step: RestoreCall) -> None:
        params: dict[str, Any] = {"topic": step.topic}
        if step.method == "topic_create":
            params["mode"] = step.mode
        elif step.method == "topic_subscribe" and step.mode == "topic":
            params["since"] = max(0, self._seen_ms - _MARGIN_MS)
        try:
            await call(step.method, params, replies.nothing)
        except ProtocolError as error:
            if error.code == "broker_unavailable":
                raise
            log.warning("topic_not_put_back", topic=step.topic, method=step.method, error=error.code)

    def _wish(self, topic: str, wish: Wish) -> None:
        self._wishes[topic] = wish
        self._save()

    def _save(self) -> None:
        topics = {
            name: {"mode": wish.mode, "created": wish.created, "subscribed": wish.subscribed}
            for name, wish in sorted(self._wishes.items())
        }
        data = {
            "schema_version": 1,
            "seen_ms": self._seen_ms,
            "member_lost": self._is_member_lost,
            "topics": topics,
        }
        text = orjson.dumps(data, option=orjson.OPT_INDENT_2)
        self._write(self._path.name, lambda: write_atomic(self._path, text))


def _wish_of(item: Mapping[str, Any]) -> Wish:
    mode, created, subscribed = item["mode"], item["created"], item["subscribed"]
    if mode not in TOPIC_MODES or not isinstance(created, bool) or subscribed not in (True, False, None):
        raise ValueError("a topic's entry is damaged")
    return Wish(mode, created, subscribed)


def _listed(answer: TopicList) -> dict[str, Listed]:
    return {entry.topic: Listed(entry.mode, entry.subscribed) for entry in answer.items}
