"""The announcer of presence: its intervals, its recipients and its frames."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from claudemesh.broker.cluster.signals import Signals
from claudemesh.broker.connections.hub import Hub
from claudemesh.broker.presence import announcer as announcing
from claudemesh.broker.presence.announcer import Announcer, interval_s, presence_events
from claudemesh.broker.presence.roster import Change
from claudemesh.broker.settings import Limits
from claudemesh.broker.store.types import Lease
from tests.support.environment import SignalStore, environment
from tests.support.waiting import WAIT_S
from tests.unit.broker.connections.test_hub import Recorder


@dataclass
class Bench:
    """An announcer whose connections only remember their frames."""

    hub: Hub = field(default_factory=lambda: Hub(16))
    store: SignalStore | None = None
    limits: Limits | None = None
    crashes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        env = environment(limits=self.limits, on_crash=lambda task, error: self.crashes.append(repr(error)))
        shared: Any = self.store
        self.signals = Signals(shared, env)
        self.announcer = Announcer(self.hub, self.signals, shared, env)
        self.signals.start(lambda: None)

    def come(self, name: str, *, hears: bool = True) -> Recorder:
        """A member connects."""
        link = Recorder(name, wants_presence=hears)
        self.hub.admit(link, "prefer_newest")  # type: ignore[arg-type]
        self.announcer.arrived(link, {"member_id": name, "name": name}, visible=True)  # type: ignore[arg-type]
        return link

    def go(self, link: Recorder) -> None:
        """It goes."""
        self.hub.leave(link)  # type: ignore[arg-type]
        self.announcer.left("mesh", link.member_id)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the announcer work until something is so."""
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - the announcer has no event for an announcement
                await asyncio.sleep(0.01)
        assert self.crashes == []


def told(link: Recorder) -> list[dict[str, Any]]:
    """The data of the presence events that a connection got."""
    frames = [orjson.loads(frame) for frame in link.frames]
    return [frame["data"] for frame in frames if frame["event"] == "presence"]


def believed(link: Recorder) -> set[str]:
    """Return the members that are online by these events."""
    online: set[str] = set()
    for data in told(link):
        online = (set() if data["whole"] else online) | set(data["online"])
        online -= set(data["offline"])
    return online


def test_the_interval_grows_with_the_mesh_and_has_an_end() -> None:
    """A change in a small mesh shows at once; a large one is told a few times a minute at the most."""
    assert interval_s(2, 0.001) == announcing.GATHER_S
    assert interval_s(2_000, 0.001) == 2.0
    assert interval_s(1_000_000, 0.001) == 5.0


def test_an_event_has_a_bounded_number_of_members() -> None:
    """Many of them become several events, of which the first is marked as a new beginning."""
    ids = tuple(f"{number:036}" for number in range(12_000))
    parts = [orjson.loads(frame)["data"] for frame in presence_events(Change(ids, ids[:3]), 7, whole=True)]
    assert [part["whole"] for part in parts] == [True, False, False, False]
    assert [one for part in parts for one in part["online"]] == list(ids)
    assert [one for part in parts for one in part["offline"]] == list(ids[:3])
    assert max(len(part["online"]) for part in parts) == 5_000
    assert presence_events(Change(), 7) == []
    [nobody] = presence_events(Change(), 7, whole=True)
    assert orjson.loads(nobody)["data"] == {"whole": True, "at": 7, "online": [], "offline": []}


async def test_everybody_gets_the_same_frames_and_a_newcomer_one_that_says_all() -> None:
    """Encoded once: the connections share the very text."""
    bench = Bench()
    ada, bob = bench.come("ada"), bench.come("bob")
    await bench.until(lambda: believed(ada) == believed(bob) == {"ada", "bob"})
    assert ada.frames == bob.frames
    assert ada.frames[0] is bob.frames[0]
    cleo = bench.come("cleo")
    await bench.until(lambda: believed(ada) == believed(cleo) == {"ada", "bob", "cleo"})
    assert [data["whole"] for data in told(cleo)] == [True]
    assert told(ada)[-1]["online"] == ["cleo"]
    bench.go(bob)
    await bench.until(lambda: believed(ada) == believed(cleo) == {"ada", "cleo"})
    await bench.announcer.stop()


async def test_a_thousand_changes_cost_a_member_of_an_earlier_version_a_bounded_burst() -> None:
    """It is told of each member by itself, some at a time, and gets all of them in the end."""
    bench = Bench(limits=Limits(presence_s=0.00001))
    old = bench.come("old", hears=False)
    await bench.until(lambda: not bench.announcer._meshes["mesh"].is_announcing)
    before = len(old.frames)
    for number in range(500):
        bench.come(f"m{number}", hears=False)
    bursts = []

    def all_told() -> bool:
        nonlocal before
        if len(old.frames) > before:
            bursts.append(len(old.frames) - before)
            before = len(old.frames)
        return sum(bursts) >= 500

    await bench.until(all_told)
    assert max(bursts) <= 2 * announcing._SINGLE_EVENTS, bursts
    names = {orjson.loads(frame)["data"]["name"] for frame in old.frames}
    assert names == {f"m{number}" for number in range(500)}, "and nothing about itself"
    await bench.announcer.stop()


async def test_with_other_brokers_a_newcomer_is_told_of_their_members_too() -> None:
    """Their leases are read before the first event, and a read that fails does not delay it for ever."""
    store = SignalStore()
    store.failures = [OSError("the database is away")]
    store.rows = {"mesh": [Lease("two", "zoe", True), Lease("two", "hal", False), Lease("one", "ada", True)]}
    bench = Bench(store=store)

    def published(group: str) -> list[str]:
        return [one for signal in store.sent if signal["kind"] == "presence" for one in signal.get(group, ())]

    ada = bench.come("ada")
    await bench.until(lambda: believed(ada) == {"ada"})
    bob = bench.come("bob")
    await bench.until(lambda: believed(bob) == believed(ada) == {"ada", "bob", "zoe"})
    await store.receive("presence", mesh="mesh", online=["hal"])
    await store.receive("presence", mesh="mesh", gone=["zoe"])
    await bench.until(lambda: believed(ada) == {"ada", "bob", "hal"})
    bench.go(bob)
    await bench.until(lambda: published("gone") == ["bob"])
    assert published("online") == ["ada", "bob"]
    bench.go(ada)
    await bench.until(lambda: bench.announcer.online("mesh") == frozenset())
    await bench.until(lambda: not bench.announcer._meshes)
    await bench.announcer.stop()
    await bench.signals.stop()
