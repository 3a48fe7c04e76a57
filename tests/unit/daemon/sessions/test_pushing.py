"""Pushes of real sessions over a real inbox: which message, when, and when again."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.bus import Bus, BusEvent
from claudemesh.daemon.sessions.news import SessionNews
from claudemesh.daemon.sessions.pushing import Pushing, PushPage
from claudemesh.daemon.sessions.state import LEASE_S
from claudemesh.daemon.sessions.trust import SenderTrust
from claudemesh.daemon.sessions.waking import IN_FLIGHT_S, RETRY_S
from claudemesh.daemon.settings import Trust
from claudemesh.protocol.errors import ProtocolError
from tests.support.daemon import NOW, directory_of
from tests.unit.daemon.sessions.test_service import ALICE, Host, host


class Pushed(Host):
    """A host whose sessions are pushed to."""

    def __init__(self, made: Host) -> None:
        self.__dict__.update(made.__dict__)
        self.bus = Bus()
        self.trusted: dict[str, Trust] = {}
        directory = directory_of(self.inbox.database.path.parent, ALICE)
        self.trust = SenderTrust(directory, lambda: self.trusted)
        self.pushing = self.restarted()

    def restarted(self) -> Pushing:
        """The pushes as a daemon has them that starts now."""
        return Pushing(self.sessions, self.inbox, self.bus, self.clock, self.trust)

    def live_on(self, session_id: str, seconds: float) -> None:
        """Let time pass, with heartbeats."""
        while seconds > 0:
            self.clock.advance(seconds=min(seconds, LEASE_S / 2))
            self.sessions.renew(session_id, "idle")
            seconds -= LEASE_S / 2

    async def due(self, session_id: str) -> tuple[str, list[str]]:
        page = await self.pushing.next(session_id, 0)
        assert [item["id"] for item in page.items] == list(page.push.ids)
        return page.push.form, list(page.push.ids)


async def test_a_message_is_pushed_once_until_its_receipt_or_a_delay(tmp_path: Path) -> None:
    """Its text when it is alone, a pointer for several; a proof lets the next ones go at once."""
    async with host(tmp_path) as made:
        it = Pushed(made)
        api = (await it.register("api", reach="push")).session_id
        assert await it.due(api) == ("none", [])
        first = await it.receive("one", "api")
        assert await it.due(api) == ("text", [first])
        second = await it.receive("two", "api")
        assert await it.due(api) == ("none", [])
        await it.inbox.mark([first], "shown", NOW, "api")
        assert await it.due(api) == ("text", [second])
        third = await it.receive("three", "api")
        it.live_on(api, IN_FLIGHT_S + 1)
        assert await it.due(api) == ("pointer", [second, third])
        await it.inbox.mark([second, third], "notified", NOW, "api")
        assert await it.due(api) == ("none", [])


@pytest.mark.parametrize(("word", "form"), [("inbox", "none"), ("mute", "none"), ("wake", "text")], ids=str)
async def test_trust_in_the_sender_decides_on_a_push(tmp_path: Path, word: Trust, form: str) -> None:
    """By the settings of the moment."""
    async with host(tmp_path) as made:
        bob = Pushed(made)
        api = await bob.register("api", reach="push")
        bob.trusted["alice"] = word
        await bob.receive("hello", "api")
        assert (await bob.due(api.session_id))[0] == form


async def test_a_push_that_its_client_drops_is_made_again_and_then_left(tmp_path: Path) -> None:
    """After 30 s, 2 min and 10 min; a restart of the daemon in between does no harm."""
    async with host(tmp_path) as made:
        it = Pushed(made)
        api = (await it.register("api", reach="push")).session_id
        message = await it.receive("one", "api")
        for delay in (0.0, *RETRY_S):
            it.live_on(api, delay)
            assert await it.due(api) == ("text", [message])
        it.live_on(api, 3600)
        assert await it.due(api) == ("none", [])
        it.pushing = it.restarted()
        assert await it.due(api) == ("text", [message])


async def test_ten_thousand_messages_are_one_push_and_a_new_one_is_another(tmp_path: Path) -> None:
    """The pointer counts all of them, and its proof marks all. One that a hook told of begins no push."""
    async with host(tmp_path) as made:
        it = Pushed(made)
        news = SessionNews(it.sessions, it.inbox.untold, it.trust, it.clock)
        api = (await it.register("api", reach="push")).session_id
        await it.receive_many(10_000, "api")
        page = await it.pushing.next(api, 0)
        assert (page.push.form, page.count, page.more) == ("pointer", 1000, True)
        assert (await it.pushing.next(api, 0)).push.reason == "in_flight"
        await news.told(api, page.through)
        assert (await it.pushing.next(api, 0)).push.form == "none"
        newest = await it.receive("newest", "api")
        page = await it.pushing.next(api, 0)
        assert (page.push.form, page.push.ids[-1]) == ("pointer", newest)
        await it.receive("told by a hook", "api")
        await news.told(api, (await news.of(api)).through)
        assert (await it.pushing.next(api, 0)).push.form == "none"


async def test_all_messages_that_a_push_counts_are_those_of_the_session(tmp_path: Path) -> None:
    """It works when it proves the push and reads them; an idle session beside it is given none."""
    async with host(tmp_path) as made:
        it = Pushed(made)
        news = SessionNews(it.sessions, it.inbox.untold, it.trust, it.clock)
        api, web = [(await it.register(name, reach="push")).session_id for name in ("api", "web")]
        it.sessions.renew(web, "working")
        await it.receive_many(2_500)
        page = await it.pushing.next(api, 0)
        assert (page.push.form, page.more) == ("pointer", True)
        it.sessions.renew(api, "working")
        it.sessions.renew(web, "idle")
        await news.told(api, page.through)
        assert await it.given() == {"api": 2_500}
        assert (await it.pushing.next(web, 0)).push.reason == "empty"
        later = await it.receive("later")
        assert await it.due(web) == ("text", [later])


async def test_a_push_whose_messages_cannot_be_given_is_due_again(tmp_path: Path) -> None:
    """It was not made: with room on the disk the next one is, without a delay."""
    async with host(tmp_path) as made:
        it = Pushed(made)
        api = (await it.register("api", reach="push")).session_id
        await it.receive_many(101, "api")
        await it.receive_many(10)
        path = it.inbox.database.path
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("CREATE TRIGGER full BEFORE UPDATE ON inbox BEGIN SELECT RAISE(FAIL, 'full'); END")
        with pytest.raises(Exception, match="full"):
            await it.pushing.next(api, 0)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("DROP TRIGGER full")
        page = await it.pushing.next(api, 0)
        assert (page.push.form, page.count) == ("pointer", 111)


async def test_many_messages_that_wake_no_session_hold_back_none_that_does(tmp_path: Path) -> None:
    """Confirmations, as posts of a topic and messages of an unattended job would."""
    async with host(tmp_path) as made:
        it = Pushed(made)
        api = (await it.register("api", reach="push")).session_id
        await it.receive_many(250, "api", meta='{"intent":"ack"}')
        assert await it.due(api) == ("none", [])
        message = await it.receive("wake up", "api")
        assert await it.due(api) == ("text", [message])


async def test_messages_for_the_host_wake_the_session_that_is_given_them(tmp_path: Path) -> None:
    """And none that another session would be given."""
    async with host(tmp_path) as made:
        it = Pushed(made)
        api = (await it.register("api", reach="push")).session_id
        web = (await it.register("web", reach="push")).session_id
        it.sessions.renew(api, "working")
        message = await it.receive("for the host")
        assert await it.due(api) == ("none", [])
        assert await it.due(web) == ("text", [message])


async def test_with_all_a_message_for_the_host_wakes_each_session_until_one_has_shown_it(
    tmp_path: Path,
) -> None:
    """A proof of one session leaves the pushes of the other ones as they are."""
    async with host(tmp_path, "all") as made:
        it = Pushed(made)
        api, web = [(await it.register(name, reach="push")).session_id for name in ("api", "web")]
        first = await it.receive("for the host")
        second = await it.receive("for the host too")
        assert await it.due(api) == ("pointer", [first, second])
        await it.inbox.mark([first, second], "notified", NOW, "api")
        assert await it.due(web) == ("pointer", [first, second])
        await it.inbox.mark([first, second], "notified", NOW, "web")
        for one in (api, web):
            assert await it.due(one) == ("none", [])
        for _ in range(4):
            it.clock.advance(seconds=LEASE_S / 3)
            for one in (api, web):
                it.sessions.renew(one, "idle")
        assert [await it.due(one) for one in (api, web)] == [("pointer", [first, second])] * 2
        await it.inbox.mark([first, second], "shown", NOW, "web")
        for one in (api, web):
            assert await it.due(one) == ("none", [])


async def test_a_request_waits_for_a_message_and_an_older_request_takes_none(tmp_path: Path) -> None:
    """A client that has gone would take the push with it."""
    async with host(tmp_path) as made:
        it = Pushed(made)
        api = (await it.register("api", reach="push")).session_id
        older = asyncio.create_task(it.pushing.next(api, 60))
        newer: asyncio.Task[PushPage] = asyncio.create_task(it.pushing.next(api, 60))
        await asyncio.sleep(0)
        message = await it.receive("one", "api")
        while not newer.done():
            it.bus.publish([BusEvent("message", {})])
            await asyncio.sleep(0)
        assert (await newer).push.ids == (message,)
        assert (await older).push.form == "none"


async def test_a_session_that_is_not_live_is_told_so(tmp_path: Path) -> None:
    """Its client registers again."""
    async with host(tmp_path) as made:
        with pytest.raises(ProtocolError, match="no live session"):
            await Pushed(made).pushing.next("none", 0)


async def test_the_end_of_the_daemon_ends_the_waiting(tmp_path: Path) -> None:
    """With no push."""
    async with host(tmp_path) as made:
        it = Pushed(made)
        api = (await it.register("api", reach="push")).session_id
        waiting: asyncio.Task[Any] = asyncio.create_task(it.pushing.next(api, 60))
        it.bus.close()
        assert (await waiting).push.form == "none"
