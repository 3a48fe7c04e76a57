"""A daemon's picture of who is online, by what brokers of both kinds tell."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from claudemesh.daemon.bus import BusEvent
from claudemesh.daemon.identity.absence import absence
from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.identity.presence import Presence
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.events import PresenceEvent, parse_event
from claudemesh.protocol.frames import Event
from claudemesh.protocol.replies import BadReply, PeerList, Read, peers
from claudemesh.runtime.services import TaskOwner
from tests.support.clock import ManualClock
from tests.support.daemon import MESH_ID, person
from tests.support.values import replace
from tests.support.waiting import WAIT_S

T = TypeVar("T")

ALICE, BOB, EVE = person("alice"), person("bob"), person("eve")


@dataclass
class Sync:
    """The part that asks for the list."""

    changes: list[Any] = field(default_factory=list)
    pages: list[Any] = field(default_factory=list)
    asked: int = 0
    asks_online: bool | None = None

    def on_change(self, handler: Any) -> None:
        self.changes.append(handler)

    def on_page(self, handler: Any) -> None:
        self.pages.append(handler)

    def soon(self) -> None:
        self.asked += 1

    def link_up(self, *, asks_online: bool) -> None:
        self.asks_online = asks_online


class Bench:
    """Alice's picture; she knows Bob."""

    def __init__(self, folder: Path, seen_wait_s: float = WAIT_S) -> None:
        self.tasks = TaskOwner()
        self.directory = Directory(folder / "peers.json", MESH_ID)
        self.directory.apply(peers({"items": [ALICE.entry(), BOB.entry()]}).items)
        self.sync = Sync()
        self.published: list[BusEvent] = []
        self.presence = Presence(
            ALICE.member_id,
            self.directory,
            self.sync,  # type: ignore[arg-type]
            self.published.extend,
            ManualClock(),
            self.ask,
            self.tasks,
            seen_wait_s,
        )
        self.asked: list[list[str]] = []
        self.seen: dict[str, int] | ProtocolError = {}
        self.hangs: asyncio.Event | None = None

    async def ask(self, method: str, params: Mapping[str, Any], read: Read[T]) -> T:
        """The broker answers."""
        assert method == "members_seen"
        self.asked.append(params["member_ids"])
        if self.hangs is not None:
            await self.hangs.wait()
        if isinstance(self.seen, ProtocolError):
            raise self.seen
        items = [{"member_id": one, "last_seen_at": at_ms} for one, at_ms in self.seen.items()]
        return read({"items": items})

    def hear(self, event: str, **data: Any) -> None:
        """The broker says something."""
        news = parse_event(Event(event, data))
        assert isinstance(news, PresenceEvent)
        work = self.presence.take(news)
        with suppress(StopIteration):
            while True:
                # It waits for nothing but the turn of other tasks.
                work.send(None)

    def tell(self, online: list[str] = [], offline: list[str] = [], **data: Any) -> None:  # noqa: B006
        """The broker says who came and who went."""
        self.hear("presence", **({"online": online, "offline": offline, "whole": False, "at": 7} | data))

    @property
    def shown(self) -> list[tuple[str, str]]:
        """Return the events that local programs got."""
        return [(event.event, event.data["name"]) for event in self.published]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A picture on a link to a broker that tells."""
    made = Bench(tmp_path)
    made.presence.link_up(told=True)
    return made


def test_the_first_word_on_a_link_is_the_whole_and_is_no_news(bench: Bench) -> None:
    """Programs are told of changes; who is there is asked for."""
    bench.tell([BOB.member_id], whole=True)
    assert bench.presence.is_online(BOB.member_id)
    bench.tell([], whole=True)
    assert not bench.presence.is_online(BOB.member_id)
    assert bench.shown == []


def test_changes_are_told_with_names_once_each_and_never_about_oneself(bench: Bench) -> None:
    """A repeated word is no event."""
    bench.tell([], whole=True)
    bench.tell([BOB.member_id, ALICE.member_id])
    bench.tell([BOB.member_id])
    bench.tell([], [BOB.member_id], at=1_700_000_000_000)
    bench.tell([], [BOB.member_id])
    assert bench.shown == [("peer_join", "bob"), ("peer_leave", "bob")]
    assert bench.presence.is_online(ALICE.member_id), "this member is, while the link is up"


def test_who_went_was_seen_last_at_that_moment(bench: Bench) -> None:
    """And not when it came, which is what the list said."""
    peer = bench.directory.by_id(BOB.member_id)
    assert peer is not None
    bench.tell([BOB.member_id], whole=True)
    bench.tell([], [BOB.member_id], at=1_700_000_000_000)
    assert bench.presence.last_seen_ms(peer) == 1_700_000_000_000
    assert bench.presence.last_seen_ms(replace(peer, visible=False)) is None


def test_who_was_online_when_the_link_was_lost_was_seen_then_also_after_a_restart(bench: Bench) -> None:
    """The list has the beginning of a presence, and a broker that is gone tells nothing."""
    bench.tell([BOB.member_id], whole=True)
    bench.presence.keep_seen()
    peer = bench.directory.by_id(BOB.member_id)
    assert peer is not None
    assert peer.last_seen_at == bench.presence.last_seen_ms(peer) == ManualClock().wall_ms()


async def test_the_broker_is_asked_once_on_each_link_when_an_offline_member_was_seen(bench: Bench) -> None:
    """It may have come and gone while this host was away. A broker of an earlier version has no answer."""
    known = [peer for peer in (bench.directory.by_id(BOB.member_id),) if peer is not None]
    bench.presence.link_down()
    await bench.presence.learn_seen(known)
    assert bench.asked == [], "without a link there is nobody to ask"
    bench.presence.link_up(told=True)
    bench.seen = {BOB.member_id: 77, EVE.member_id: 99}
    await bench.presence.learn_seen(known)
    await bench.presence.learn_seen(known)
    assert bench.asked == [[BOB.member_id]]
    assert bench.presence.last_seen_ms(known[0]) == 77
    bench.presence.link_down()
    bench.presence.link_up(told=True)
    bench.seen = ProtocolError("unknown_method", "The broker has no such call.")
    await bench.presence.learn_seen(known)
    assert (len(bench.asked), bench.presence.last_seen_ms(known[0])) == (2, 77)
    bench.presence.link_down()
    bench.presence.link_up(told=True)
    bench.tell(online=[BOB.member_id], whole=True)
    await bench.presence.learn_seen(known)
    assert len(bench.asked) == 2, "one that is online is seen now"


async def test_a_late_answer_about_an_offline_member_is_taken_when_it_comes(tmp_path: Path) -> None:
    """The list of a broker that hangs is shown without it; one that does not answer is asked again."""
    bench = Bench(tmp_path, seen_wait_s=0)
    bench.presence.link_up(told=True)
    [peer] = [peer for peer in (bench.directory.by_id(BOB.member_id),) if peer is not None]
    bench.seen, bench.hangs = {BOB.member_id: 77}, asyncio.Event()
    await bench.presence.learn_seen([peer])
    assert bench.presence.last_seen_ms(peer) is None
    await bench.presence.learn_seen([peer])
    assert bench.asked == [[BOB.member_id]]
    bench.hangs.set()
    await bench.tasks.join()
    assert bench.presence.last_seen_ms(peer) == 77
    bench.presence.link_up(told=True)
    bench.seen = ProtocolError("broker_unavailable", "It does not answer.")
    for _ in range(2):
        await bench.presence.learn_seen([peer])
        await bench.tasks.join()
    assert len(bench.asked) == 3


async def test_a_clause_about_an_offline_recipient_has_the_time_that_the_broker_tells(bench: Bench) -> None:
    """The daemon asks for it first."""
    bench.presence.link_up(told=True)
    bench.seen = {BOB.member_id: 86_400_000}
    key = BOB.identity.ed25519_pubkey
    clause = await absence(bench.directory, bench.presence, lambda: True, key, needs_session=False)
    assert clause == "the host of bob is offline since 1970-01-02T00:00:00.000Z"


def test_a_member_that_is_not_known_yet_is_asked_for_and_told_when_it_is(bench: Bench) -> None:
    """The list may be a moment behind."""
    bench.tell([], whole=True)
    bench.tell([EVE.member_id])
    assert (bench.sync.asked, bench.shown) == (1, [])
    bench.directory.apply(peers({"items": [EVE.entry()]}).items)
    for hear in bench.sync.changes:
        hear()
    assert bench.shown == [("peer_join", "eve")]


def test_very_many_changes_are_told_as_numbers(bench: Bench) -> None:
    """A listener holds a thousand events: two thousand about presence would cut it off."""
    bench.tell([], whole=True)
    bench.tell([f"00000000-0000-7000-8000-{number:012}" for number in range(2_000)])
    [event] = bench.published
    assert (event.event, event.data) == ("peers_changed", {"online": 2_000, "offline": 0})


async def test_who_asks_right_after_the_link_opened_gets_the_brokers_first_word(bench: Bench) -> None:
    """Not an empty list; without a link there is no wait."""
    asking = asyncio.ensure_future(bench.presence.known())
    await asyncio.sleep(0)
    assert not asking.done()
    bench.tell([BOB.member_id], whole=True)
    await asking
    assert bench.presence.is_online(BOB.member_id)
    bench.presence.link_down()
    asking = asyncio.ensure_future(bench.presence.known())
    await asyncio.sleep(0)
    assert asking.done()


def test_without_a_link_nobody_is_online(bench: Bench) -> None:
    """Not even this member."""
    bench.tell([BOB.member_id], whole=True)
    bench.presence.link_down()
    assert not bench.presence.is_online(BOB.member_id)
    assert not bench.presence.is_online(ALICE.member_id)


def test_a_broker_of_an_earlier_version_tells_by_its_list_and_of_each_member(tmp_path: Path) -> None:
    """Its list is asked for who is online, and believed; a broker that tells is not asked."""
    bench = Bench(tmp_path)
    bench.presence.link_up(told=False)
    assert bench.sync.asks_online is True
    page: PeerList = peers({"items": [BOB.entry() | {"online": True}]})
    bench.sync.pages[0](page)
    assert bench.presence.is_online(BOB.member_id)
    bench.hear("peer_leave", member_id=BOB.member_id)
    assert not bench.presence.is_online(BOB.member_id)
    bench.hear("peer_join", member_id=BOB.member_id, name="bob", pubkey=BOB.identity.ed25519_pubkey)
    assert bench.shown == [("peer_leave", "bob"), ("peer_join", "bob")]
    bench.presence.link_down()
    bench.presence.link_up(told=True)
    assert bench.sync.asks_online is False
    bench.sync.pages[0](page)
    bench.hear("peer_join", member_id=BOB.member_id)
    assert not bench.presence.is_online(BOB.member_id), "a broker that tells is believed alone"


@pytest.mark.parametrize(
    "data",
    [
        {"online": "all", "offline": [], "whole": True},
        {"online": [7], "offline": [], "whole": True},
        {"online": ["bob"], "offline": [], "whole": True},
        {"online": [], "offline": [], "whole": "yes"},
        {"online": [], "whole": True},
        {"online": [], "offline": [], "whole": True, "at": {}},
    ],
)
def test_an_event_of_another_shape_is_refused_by_name(data: dict[str, Any]) -> None:
    """Nothing of it is taken over."""
    with pytest.raises(BadReply):
        parse_event(Event("presence", data))
