"""Sessions on disk: registration, give-back, and one session for each message."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from claudemesh.daemon.inbox.selection import Selection
from claudemesh.daemon.inbox.store import InboxRow, InboxStore
from claudemesh.daemon.sessions.process import mark
from claudemesh.daemon.sessions.service import Sessions
from claudemesh.daemon.sessions.state import LEASE_S, MAX_SESSIONS, Registration, Session
from claudemesh.daemon.sessions.store import MAX_NAMES, SessionStore
from claudemesh.protocol.errors import ProtocolError
from tests.support.clock import ManualClock
from tests.support.daemon import NOW, new_ulid


class Host:
    """A host's inbox and its sessions."""

    def __init__(self, inbox: InboxStore, mode: Callable[[], str]) -> None:
        self.inbox = inbox
        self.clock = ManualClock()
        self.mode = mode
        self.sessions = self.started()

    def started(self) -> Sessions:
        """The sessions as a daemon has them that starts now."""
        return Sessions(SessionStore(self.inbox.database), self.clock, new_ulid, lambda: self.mode())

    async def receive(self, body: str, to_session: str | None = None) -> str:
        row = InboxRow(
            id=new_ulid(),
            client_message_id=new_ulid(),
            sender_member_id="m",
            broker_message_id=new_ulid(),
            history_id=1,
            mesh="demo",
            kind="dm",
            topic=None,
            sender_pubkey="aa" * 32,
            sender_name="alice",
            body=body,
            meta=None,
            priority="next",
            received_at=NOW,
            reply_to_id=None,
            to_session=to_session,
        )
        await self.inbox.insert([row])
        return row.id

    async def register(self, name: str, **fields: Any) -> Session:
        given = {"client": "test", "reach": "pull", "cwd": f"/src/{name}", **fields}
        return await self.sessions.register(Registration(**given))

    async def seen_by(self, name: str) -> list[str | None]:
        """The texts that the inbox lists for a session."""
        await self.sessions.asks(name)
        chosen = Selection(session=name, with_host=self.sessions.takes_all)
        return [item["body"] for item in (await self.inbox.page(chosen))[0]]


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
            await bob.sessions.asks("api")
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


async def test_ten_thousand_unread_messages_are_given_once_and_whole(tmp_path: Path) -> None:
    """A host that was left alone for a while."""
    async with host(tmp_path) as bob:
        first = InboxRow(
            "", "", "m", "", 1, "demo", "dm", None, "aa" * 32, "alice", "x", None, "next", NOW, None
        )
        ids = [new_ulid() for _ in range(10_000)]
        rows = [type(first)(one, one, *_rest(first)) for one in ids]
        await bob.inbox.insert(rows)
        await bob.register("api")
        await bob.register("web")
        await bob.sessions.asks("api")
        counts = "SELECT for_session, count(*) FROM inbox GROUP BY 1"
        found = await bob.inbox.database.run(lambda raw: raw.execute(counts).fetchall())
        assert found == [("api", 10_000)]
        await bob.sessions.asks("web")
        assert await bob.inbox.database.run(lambda raw: raw.execute(counts).fetchall()) == found


def _rest(row: InboxRow) -> tuple[Any, ...]:
    names = [name for name in row.__dataclass_fields__ if name not in ("id", "client_message_id")]
    return tuple(getattr(row, name) for name in names)
