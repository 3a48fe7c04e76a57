"""News of members and changes of the own profile: at most one a second, and the last one wins."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.bus import BusEvent
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.news import MemberNews
from claudemesh.daemon.identity.profile import ProfileUpdates
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.services import TaskOwner
from tests.support.daemon import directory_of, person
from tests.support.waiting import WAIT_S

ALICE, BOB = person("alice"), person("bob")


class Heard:
    """The events and the hooks that were told."""

    def __init__(self, directory: Directory) -> None:
        self.events: list[BusEvent] = []
        self.hooks: list[str] = []
        self.news = MemberNews(directory, self._publish, self._tell)
        self.more = asyncio.Event()

    def _publish(self, events: Sequence[BusEvent]) -> None:
        self.events += events
        self.more.set()

    def _tell(self, name: str, data: Mapping[str, Any]) -> None:
        self.hooks.append(name)


async def test_of_many_changes_of_a_profile_the_first_and_the_last_are_told(tmp_path: Path) -> None:
    """Changes of another member, and other events, do not wait for them."""
    directory = directory_of(tmp_path, ALICE, BOB)
    heard = Heard(directory)

    def change(**changes: object) -> None:
        directory.apply([ALICE.listed(**changes)])
        heard.news.on_news(directory.take_news())

    for number in range(20):
        change(summary=f"step {number}")
    directory.apply([BOB.listed(summary="other")])
    heard.news.on_news(directory.take_news())
    change(name="alicia", summary="step 19")
    told = [(event.event, event.data.get("summary")) for event in heard.events]
    assert told == [("member_updated", "step 0"), ("member_updated", "other"), ("member_renamed", None)]
    # Each event names the fields whose text a member has chosen.
    assert [event.data["untrusted"] for event in heard.events[1:]] == [
        ["name", "sessions", "status", "summary"],
        ["name", "old_name"],
    ]
    heard.more.clear()
    async with asyncio.timeout(WAIT_S):
        await heard.more.wait()
    last = heard.events[-1]
    assert (last.event, last.data["summary"], last.data["name"]) == ("member_updated", "step 19", "alicia")
    assert heard.hooks[0] == "on-member-updated"
    assert "on-member-renamed" in heard.hooks


async def test_changes_of_the_own_profile_share_a_call_and_the_last_one_wins() -> None:
    """Each caller is answered when the broker has its change, or one that replaces it."""
    calls: list[Mapping[str, Any]] = []

    async def ask(method: str, params: Mapping[str, Any], read: Any) -> Any:
        assert method == "profile"
        calls.append(dict(params))

    profile = ProfileUpdates(ask, TaskOwner())
    await profile.set({"summary": "first"})
    changes = [profile.set({"summary": f"step {number}"}) for number in range(9)]
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*changes, profile.set({"status": "working"}))
    assert calls == [{"summary": "first"}, {"summary": "step 8", "status": "working"}]


async def test_a_refused_change_of_the_profile_is_told_to_its_caller() -> None:
    """The next change is asked for again."""
    answers = [ProtocolError("broker_unavailable", "The broker is away."), None]

    async def ask(method: str, params: Mapping[str, Any], read: Any) -> Any:
        if (error := answers.pop(0)) is not None:
            raise error

    profile = ProfileUpdates(ask, TaskOwner())
    with pytest.raises(ProtocolError, match="away"):
        await profile.set({"summary": "first"})
    async with asyncio.timeout(WAIT_S):
        await profile.set({"summary": "second"})
    assert answers == []
