"""Sessions on disk: registration, give-back, and one session for each message."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from claudemesh.daemon.inbox.selection import HostMessages, Selection
from claudemesh.daemon.inbox.store import InboxRow, InboxStore
from claudemesh.daemon.sessions.news import SessionNews
from claudemesh.daemon.sessions.process import mark
from claudemesh.daemon.sessions.service import Page, Sessions
from claudemesh.daemon.sessions.state import LEASE_S, MAX_SESSIONS, Registration, Session
from claudemesh.daemon.sessions.store import MAX_NAMES, SessionStore
from claudemesh.daemon.sessions.trust import SenderTrust
from claudemesh.protocol.errors import ProtocolError
from tests.support.clock import ManualClock
from tests.support.daemon import NOW, directory_of, new_ulid, person
from tests.support.inbox import inbox_row

ALICE = person("alice")


class Host:
    """A host's inbox and its sessions."""

    def __init__(self, inbox: InboxStore, mode: Callable[[], str]) -> None:
        self.inbox = inbox
        self.clock = ManualClock()
        self.directory = directory_of(inbox.database.path.parent, ALICE)
        self.mode = mode
        self.sessions = self.started()

    def started(self) -> Sessions:
        """The sessions as a daemon has them that starts now."""
        return Sessions(SessionStore(self.inbox.database), self.clock, new_ulid, lambda: self.mode())

    async def receive(self, body: str, to_session: str | None = None) -> str:
        row = self._row(body, to_session)
        await self.inbox.insert([row])
        return row.id

    async def receive_many(self, count: int, to_session: str | None = None, meta: str | None = None) -> None:
        await self.inbox.insert(
            [msgspec.structs.replace(self._row("x", to_session), meta=meta) for _ in range(count)]
        )

    def _row(self, body: str, to_session: str | None) -> InboxRow:
        return inbox_row(sender_member_id=ALICE.member_id, body=body, to_session=to_session)

    async def given(self) -> dict[str | None, int]:
        """The number of messages that each session has."""
        counts = "SELECT for_session, count(*) FROM inbox GROUP BY 1"
        return dict(await self.inbox.database.run(lambda raw: raw.execute(counts).fetchall()))

    async def register(self, name: str, **fields: Any) -> Session:
        given = {"client": "test", "reach": "pull", "cwd": f"/src/{name}", **fields}
        return await self.sessions.register(Registration(**given))

    async def seen_by(self, name: str) -> list[str | None]:
        """The texts that the inbox lists for a session."""

        def read(name: str, host: HostMessages) -> Awaitable[Page]:
            return self.inbox.page(Selection(session=name, host=host))

        return [item["body"] for item in (await self.sessions.list_for(name, read))[0]]


@asynccontextmanager
async def host(folder: Path, mode: str = "one") -> AsyncGenerator[Host]:
    inbox = await InboxStore.open(folder / "inbox.db", ManualClock())
    try:
        yield Host(inbox, lambda: mode)
    finally:
        await inbox.close()


async def test_a_message_for_the_host_is_given_to_one_session(tmp_path: Path) -> None:
    """And a message for a session to that session, also when another one asks first."""
    async with host(tmp_path) as bob:
        await bob.register("api")
        await bob.register("web")
        await bob.receive("for any")
        await bob.receive("for web", to_session="web")
        assert await bob.seen_by("api") == ["for any"]
        assert await bob.seen_by("web") == ["for web"]
        assert await bob.seen_by("api") == ["for any"]


@pytest.mark.parametrize(("mode", "listed"), [("all", ["host", "mine"]), ("none", ["mine"])])
async def test_messages_for_the_host_follow_the_setting(tmp_path: Path, mode: str, listed: list[str]) -> None:
    """`all` lists them for each session, `none` for no session."""
    async with host(tmp_path, mode) as bob:
        for name in ("api", "web"):
            await bob.register(name)
        await bob.receive("host")
        for name in ("api", "web"):
            await bob.receive("mine", to_session=name)
        assert [await bob.seen_by(name) for name in ("api", "web")] == [listed, listed]


async def test_a_session_that_ends_gives_back_what_it_has_not_shown(tmp_path: Path) -> None:
    """Shown messages stay its own, and those that name it wait for its name."""
    async with host(tmp_path) as bob:
        session = await bob.register("api")
        shown = await bob.receive("shown")
        await bob.receive("not shown")
        await bob.receive("addressed", to_session="api")
        assert await bob.seen_by("api") == ["shown", "not shown", "addressed"]
        await bob.inbox.mark([shown], "shown", NOW)
        await bob.sessions.end(session.session_id)
        await bob.register("web")
        assert await bob.seen_by("web") == ["not shown"]
        await bob.register("api")
        assert await bob.seen_by("api") == ["shown", "addressed"]


async def test_a_lease_that_ran_out_ends_a_session_at_any_wall_time(tmp_path: Path) -> None:
    """A heartbeat renews it; behind its end the session registers again under its name."""
    async with host(tmp_path) as bob:
        session = await bob.register("api")
        await bob.receive("hello")
        assert await bob.seen_by("api") == ["hello"]
        bob.clock.jump(hours=24 * 365)
        bob.clock.advance(seconds=LEASE_S - 1)
        assert bob.sessions.renew(session.session_id, "working").activity == "working"
        bob.clock.advance(seconds=LEASE_S - 1)
        assert [one.name for one in await bob.sessions.live()] == ["api"]
        bob.clock.advance(seconds=1)
        assert await bob.sessions.live() == []
        with pytest.raises(ProtocolError) as caught:
            bob.sessions.renew(session.session_id, "idle")
        assert (caught.value.code, caught.value.status) == ("session_not_found", 404)
        with pytest.raises(ProtocolError):
            await bob.seen_by("api")
        again = await bob.register("api")
        assert (again.name, again.session_id == session.session_id) == ("api", False)
        assert await bob.seen_by("api") == ["hello"]


async def test_a_session_ends_with_its_process_before_its_lease(tmp_path: Path) -> None:
    """A process of the same number that began at another time is another one."""
    async with host(tmp_path) as bob:
        process = await asyncio.create_subprocess_exec("sleep", "600")
        try:
            await bob.register("api", process=mark(process.pid))
            assert [one.name for one in await bob.sessions.live()] == ["api"]
        finally:
            process.kill()
            await process.wait()
        assert await bob.sessions.live() == []
        own = mark(os.getpid())
        assert own.started is not None
        await bob.register("old", process=type(own)(own.pid, own.started - 1))
        await bob.register("own", process=own)
        assert [one.name for one in await bob.sessions.live()] == ["own"]


async def test_a_restart_loses_no_session_no_name_and_no_given_message(tmp_path: Path) -> None:
    """A session goes on under its id with a new lease; the name of an ended one stays with its project."""
    async with host(tmp_path) as bob:
        live = await bob.register("api", reach="push", client_version="2.1", client_session_id="c")
        ended = await bob.register("web")
        await bob.receive("hello")
        assert await bob.seen_by("api") == ["hello"]
        await bob.sessions.end(ended.session_id)
        bob.clock.advance(hours=1)
        bob.sessions = bob.started()
        await bob.sessions.load()
        [found] = await bob.sessions.live()
        assert (found.session_id, found.name, found.about.reach) == (live.session_id, "api", "push")
        assert bob.sessions.renew(live.session_id, "idle").name == "api"
        assert (await bob.register("x", cwd="/elsewhere/web")).name == "web-2"
        assert (await bob.register("web")).name == "web"
        await bob.sessions.end(live.session_id)
        assert await bob.seen_by("web") == ["hello"]


async def test_a_session_that_registers_twice_is_one_session(tmp_path: Path) -> None:
    """With the newer description."""
    async with host(tmp_path) as bob:
        first = await bob.register("api", client_session_id="c")
        second = await bob.register("api", client_session_id="c", reach="turn")
        assert (second.session_id, second.name) == (first.session_id, first.name)
        assert [one.about.reach for one in await bob.sessions.live()] == ["turn"]
        assert (await bob.register("api", client_session_id="d")).name == "api-2"


async def test_sessions_and_names_have_a_bound(tmp_path: Path) -> None:
    """Live sessions are refused beyond theirs; of the names, those unused for longest are forgotten."""
    async with host(tmp_path) as bob:
        for number in range(MAX_SESSIONS):
            await bob.register(f"s{number}")
        with pytest.raises(ProtocolError) as caught:
            await bob.register("more")
        assert (caught.value.code, caught.value.status) == ("too_many_sessions", 429)
        bob.clock.advance(seconds=LEASE_S)
        assert await bob.sessions.live() == []
        for number in range(MAX_NAMES):
            session = await bob.register(f"t{number}")
            await bob.sessions.end(session.session_id)
        assert (await bob.register("x", cwd="/elsewhere/s0")).name == "s0"
        assert (await bob.register("x", cwd="/elsewhere/t9")).name == "t9-2"


async def test_ten_thousand_unread_messages_are_a_summary_and_are_given_to_one_session(
    tmp_path: Path,
) -> None:
    """A host that was left alone for a while: told once, and given to the session that was told."""
    async with host(tmp_path) as bob:
        await bob.receive_many(10_000)
        web = (await bob.register("web")).session_id
        api = (await bob.register("api")).session_id
        news = SessionNews(bob.sessions, bob.inbox.untold, SenderTrust(bob.directory, dict), bob.clock)
        found = await news.of(api)
        assert (found.count, found.more, found.senders) == (1000, True, ["alice"])
        assert await bob.given() == {None: 10_000}
        await news.told(api, found.through)
        assert await bob.given() == {"api": 10_000}
        assert [(await news.of(one)).count for one in (api, web)] == [0, 0]
        assert len(await bob.seen_by("api")) == 100 and await bob.seen_by("web") == []
        await bob.receive("one more", "api")
        assert (await news.of(api)).count == 1
        assert (await news.of(api, with_told=True)).more


async def test_a_session_that_was_told_and_ended_leaves_the_next_one_to_be_told(tmp_path: Path) -> None:
    """Of the messages for the host, and of those for the name. The time of the first telling stays."""
    async with host(tmp_path) as bob:
        news = SessionNews(bob.sessions, bob.inbox.untold, SenderTrust(bob.directory, dict), bob.clock)
        first = await bob.register("api")
        for session in (None, "api"):
            await bob.receive("x", session)
        await news.told(first.session_id, (await news.of(first.session_id)).through)
        assert await bob.given() == {"api": 2}
        await bob.sessions.end(first.session_id)
        second = await bob.register("api")
        assert second.session_id != first.session_id
        assert (await news.of(second.session_id)).count == 2
        rows = "SELECT count(*) FROM inbox WHERE notified_at IS NOT NULL AND notified_by = 'api'"
        assert await bob.inbox.database.run(lambda raw: raw.execute(rows).fetchone()) == (2,)


@pytest.mark.parametrize("by", ["hook", "push"])
async def test_with_all_each_session_is_told_by_itself_until_one_has_shown_it(
    tmp_path: Path, by: str
) -> None:
    """Whether a hook told of all that waits, or a push of some. The sender is told the first session."""
    async with host(tmp_path, "all") as bob:
        news = SessionNews(bob.sessions, bob.inbox.untold, SenderTrust(bob.directory, dict), bob.clock)
        ids = {name: (await bob.register(name)).session_id for name in ("api", "web", "db")}
        messages = [await bob.receive("host"), await bob.receive("host too")]
        await bob.receive("mine", to_session="web")

        async def tell(name: str) -> None:
            found = await news.of(ids[name])
            if by == "hook":
                await news.told(ids[name], found.through)
            else:
                await bob.inbox.mark(messages, "notified", NOW, name)

        async def waiting() -> list[int]:
            return [(await news.of(one)).count for one in ids.values()]

        assert await waiting() == [2, 3, 2]
        await tell("api")
        assert await waiting() == [0, 3, 2]
        await tell("web")
        own = 0 if by == "hook" else 1
        assert await waiting() == [0, own, 2]
        by_first = "SELECT count(*) FROM inbox WHERE notified_by = 'api'"
        assert await bob.inbox.database.run(lambda raw: raw.execute(by_first).fetchone()) == (2,)
        for name in ("api", "web"):
            await bob.sessions.end(ids[name])
            ids[name] = (await bob.register(name)).session_id
        assert await waiting() == [2, 3, 2]
        await bob.inbox.mark(messages, "shown", NOW, "db")
        assert await waiting() == [0, 1, 0]
        assert await bob.given() == {"db": 2, "web": 1}


async def test_with_all_ten_thousand_messages_are_told_to_each_session(tmp_path: Path) -> None:
    """And are forgotten with the session, and with the messages."""
    async with host(tmp_path, "all") as bob:
        await bob.receive_many(2_500)
        news = SessionNews(bob.sessions, bob.inbox.untold, SenderTrust(bob.directory, dict), bob.clock)
        api, web = [(await bob.register(name)).session_id for name in ("api", "web")]
        for one in (api, web):
            found = await news.of(one)
            assert (found.count, found.more) == (1000, True)
            await news.told(one, found.through)
            assert (await news.of(one)).count == 0

        async def besides() -> tuple[int]:
            told = "SELECT count(*) FROM inbox_told"
            found: tuple[int] = await bob.inbox.database.run(lambda raw: raw.execute(told).fetchone())
            return found

        assert await besides() == (5_000,)
        await bob.inbox.database.transaction(lambda raw: raw.execute("DELETE FROM inbox WHERE seq <= 500"))
        assert await besides() == (4_000,)
        await bob.sessions.end(web)
        assert await besides() == (2_000,)
        await bob.sessions.end(api)
        assert await besides() == (0,)


async def test_messages_for_the_host_are_given_as_they_are_listed(tmp_path: Path) -> None:
    """A session that ends behind a page gives back that page, and another one reads all."""
    async with host(tmp_path) as bob:
        for number in range(150):
            await bob.receive(f"m{number}")
        api = await bob.register("api")
        assert len(await bob.seen_by("api")) == 100
        assert await bob.given() == {"api": 100, None: 50}
        await bob.sessions.end(api.session_id)
        assert await bob.given() == {None: 150}
        await bob.register("web")
        assert await bob.seen_by("web") == [f"m{number}" for number in range(100)]
