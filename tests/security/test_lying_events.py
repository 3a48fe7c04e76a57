"""A broker whose frames are valid, but lies or far too many: they fill no memory, no log and no metric, and
no frame holds the daemon's loop.
"""

from __future__ import annotations

import json
import statistics
import time
from base64 import b64encode
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest

from claudemesh.protocol.rotation import make_rotation
from tests.security.test_flooding import resident
from tests.security.test_holding import PROMISED_MS, SLOW_MACHINE, watch
from tests.support.processes import Daemon, Mesh, mesh, until
from tests.support.proxy import Rules, proxy
from tests.support.watched import held
from tests.support.wspeer import make_identity

FRAMES = 20_000
# The most that a flood may leave behind.
GROWTH = 16 << 20
LOG_BYTES = 2 << 20
METRIC_LINES = 1_000


def event(kind: str, **data: Any) -> str:
    """An event frame."""
    return json.dumps({"type": "event", "event": kind, "data": data})


def about_a_member(kind: str) -> str:
    """An event about an unknown member."""
    return event(kind, member_id=str(uuid4()), name=f"m-{uuid4()}", pubkey=uuid4().hex * 2)


def passing_by(number: int) -> str:
    """A hundred unknown members come online, or have left again."""
    ids = [f"00000000-0000-4000-8000-{number // 2:06d}{one:06d}" for one in range(100)]
    came, went = (ids, []) if number % 2 == 0 else ([], ids)
    return event("presence", whole=False, at=1, online=came, offline=went)


# The number-th frame of each flood.
FLOODS: dict[str, Callable[[int], str]] = {
    "suspected": lambda number: about_a_member("member_clone_suspected"),
    "connected_twice": lambda number: about_a_member("member_concurrent_connection"),
    "added": lambda number: about_a_member("member_added"),
    "topics": lambda number: event("topic_created", topic=f"topic-{number}", mode="topic"),
    "presence": passing_by,
    "list_changed": lambda number: event("members_changed", items=[], gone=[], version="9-ab", since=None),
    "unknown_events": lambda number: event(f"event_{number}", member_id=number),
    "wrong_by_turns": lambda number: event(
        "topic_created", topic=f"t{number}", mode=("topic", "none")[number % 2]
    ),
    "errors": lambda number: json.dumps({"type": "error", "code": "internal", "message": "x" * 4000}),
    "replies": lambda number: json.dumps({"type": "reply", "id": f"c{number}", "ok": {}}),
    "results": lambda number: json.dumps({"type": "send_result", "id": f"r{number}", "status": 500}),
}


@dataclass
class Lies(Rules):
    """Says more than the broker does, behind the next result of a send; or other pages of a list."""

    frames: list[Iterable[str]] = field(default_factory=list)
    # Makes each reply to a method.
    pages: dict[str, Callable[[], Any]] = field(default_factory=dict)
    # Of the member list, as the broker has told it last.
    version: str = ""
    _methods: dict[str, str] = field(default_factory=dict)

    def change(self, text: str) -> str:
        frame = json.loads(text)
        if frame["type"] == "call":
            self._methods[frame["id"]] = frame["method"]
        if frame["type"] == "reply" and (lie := self.pages.get(self._methods.get(frame["id"], ""))):
            return json.dumps({"type": "reply", "id": frame["id"], "ok": lie()})
        if frame["type"] == "reply" and "version" in frame.get("ok", {}):
            self.version = frame["ok"]["version"]
        return text

    def behind(self, text: str) -> Iterable[str]:
        if self.frames and json.loads(text)["type"] in ("send_result", "send_results"):
            return self.frames.pop()
        return ()

    @property
    def next_version(self) -> str:
        """The version of the list after one more change."""
        number, _, history = self.version.partition("-")
        return f"{int(number) + 1}-{history}"


@dataclass
class Lied:
    made: Mesh
    lies: Lies

    @property
    def alice(self) -> Daemon:
        return self.made.daemons["alice"]

    def tell(self, frames: Iterable[str]) -> None:
        """Let the broker say these, and wait until the daemon has read them."""
        expected = suspected(self.alice) + 1
        self.lies.frames = [(*frames, about_a_member("member_clone_suspected"))]
        assert self.alice.send("#all", "go on")[0] == 202
        until(lambda: suspected(self.alice) >= expected, "the daemon has read the last frame")

    def relink(self) -> None:
        """Let the daemon make a new link."""
        self.made.broker.stop()
        self.made.broker.start()
        self.made.broker.ready()
        self.alice.ready()


def metrics(daemon: Daemon) -> list[str]:
    """The lines of a daemon's metrics."""
    connection = daemon.connection()
    connection.request("GET", "/v1/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text.splitlines()


def suspected(daemon: Daemon) -> float:
    """The number of suspected clones that a daemon counts."""
    name = "cm_daemon_clone_suspected_total "
    return next((float(line.split()[-1]) for line in metrics(daemon) if line.startswith(name)), 0.0)


@pytest.fixture
def lied(between: Lied) -> Generator[Lied]:
    """The mesh with an honest broker, before and after the test."""
    between.lies.frames, between.lies.pages = [], {}
    between.relink()
    until(lambda: between.lies.version, "the broker has told its list")
    (between.made.root / "alice.held").write_text("")
    yield between
    between.lies.frames, between.lies.pages = [], {}


@pytest.fixture(scope="module")
def between() -> Generator[Lied]:
    """Alice, watched, behind a proxy that can say what it likes; bob joins when a test wants it."""
    lies = Lies()
    with mesh("alice", start=False, front=True) as made:
        alice = made.daemons["alice"]
        watch(alice, made, "alice")
        with proxy(made.broker.port, lies, made.broker.front_port) as port:
            path = alice.root / "membership.json"
            url = f"ws://127.0.0.1:{port}"
            path.write_text(json.dumps({**json.loads(path.read_text()), "broker_url": url}))
            alice.start()
            alice.ready()
            yield Lied(made, lies)


def assert_free(lied: Lied, what: str, *, beside_ms: float = 0.0) -> None:
    """Hold the daemon to the promise, and print the figure. `beside_ms` are no part of the promise."""
    notes = held(lied.made.root / "alice.held")
    longest = notes[0]["ms"] if notes else 0.0
    print(f"{what}: the loop was held for {longest} ms at most, of which {beside_ms} ms are free")
    assert longest <= PROMISED_MS * SLOW_MACHINE + beside_ms, notes[:5]


def receiving_ms(lied: Lied) -> float:
    """Return for how long a frame of as many values that means nothing holds the loop.

    It is read and dropped. Memory that is new, or given back, takes 0.1 ms for a mebibyte on one machine and
    4 on another, and the members of a presence event take as much again as its frame.
    """
    path = lied.made.root / "alice.held"
    path.write_text("")
    lied.tell(json.dumps({**json.loads(crowd(number)), "type": "news"}) for number in range(8))
    notes = held(path)
    path.write_text("")
    longest: float = notes[0]["ms"] if notes else 0.0
    return longest


@pytest.mark.parametrize("flood", FLOODS)
def test_valid_frames_without_end_leave_nothing_behind(lied: Lied, flood: str) -> None:
    """Neither in memory, nor in the log, nor in the metrics; and the loop goes on between them."""
    alice, make = lied.alice, FLOODS[flood]
    logged, before = alice.log.stat().st_size, resident(alice.pid)
    lied.tell(make(number) for number in range(FRAMES))
    grown = resident(alice.pid) - before
    written = alice.log.stat().st_size - logged
    print(f"{flood}: memory +{grown >> 10} KiB, log +{written >> 10} KiB, {len(metrics(alice))} metric lines")
    assert grown < GROWTH
    assert written < LOG_BYTES
    assert len(metrics(alice)) < METRIC_LINES
    assert_free(lied, flood)


def test_a_list_of_topics_without_end_is_given_up(lied: Lied) -> None:
    """The daemon says so, keeps what it knew, and its memory stays bounded."""
    alice, pages = lied.alice, iter(range(1_000_000))

    def page() -> dict[str, Any]:
        number = next(pages)
        names = [f"topic-{number:04d}-{one:05d}-{'x' * 40}" for one in range(20_000)]
        items = [{"topic": name, "mode": "topic", "subscribed": False} for name in names]
        return {"items": items, "next": names[-1]}

    before = resident(alice.pid)
    lied.lies.pages["topic_list"] = page
    lied.relink()
    until(lambda: "lists more than 200000 topics" in alice.log.read_text(), "the list is given up")
    # The next attempts are no larger.
    given_up = next(pages)
    until(lambda: next(pages) > given_up + 20, "it was asked for again")
    grown = resident(alice.pid) - before
    print(f"memory +{grown >> 20} MiB")
    assert grown < 200 << 20
    lied.lies.pages.clear()
    assert alice.post("all", "still here")[0] == 202


def test_a_list_of_topics_that_goes_on_with_empty_pages_ends(lied: Lied) -> None:
    """A program that asks for the topics gets an answer."""
    lied.lies.pages["topic_list"] = lambda: {"items": [], "next": "zzz"}
    status, answer = lied.alice.request("GET", "/v1/topic/list")
    assert (status, answer["error"]) == (503, "bad_reply")


def listed(name: str, identity: Any = None, **fields: Any) -> dict[str, Any]:
    """An entry of the member list."""
    keys = identity or make_identity()
    return {
        "member_id": str(uuid4()),
        "name": name,
        "pubkey": keys.ed25519_pubkey,
        "x25519_pubkey": keys.x25519_pubkey,
        "x25519_signature": b64encode(keys.x25519_signature).decode(),
        "key_id": keys.key_id,
        "role": "member",
        "status": "active",
        "online": False,
        "visible": True,
        "earlier_keys": [],
        **fields,
    }


def test_a_change_of_very_many_members_does_not_hold_the_loop(lied: Lied) -> None:
    alice = lied.alice
    items = [listed(f"many-{number}") for number in range(2_000)]
    lies = lied.lies
    lied.tell([event("members_changed", items=items, gone=[], since=lies.version, version=lies.next_version)])
    until(
        lambda: any(b"many-1999" in path.read_bytes() for path in alice.root.glob("peers.*")), "all are known"
    )
    assert_free(lied, "members")


def test_a_list_that_lacks_very_many_members_does_not_hold_the_loop(lied: Lied) -> None:
    """The honest broker does not list those that a lying one has made known."""
    alice, lies = lied.alice, lied.lies
    items = [listed(f"lost-{number}") for number in range(4_000)]
    lied.tell([event("members_changed", items=items, gone=[], since=lies.version, version=lies.next_version)])

    def written(mark: bytes) -> bool:
        return any(mark in path.read_bytes() for path in alice.root.glob("peers.*"))

    until(lambda: written(b"lost-3999"), "all are known")
    (lied.made.root / "alice.held").write_text("")
    lied.relink()
    until(lambda: written(b'"unlisted"'), "they are not listed")
    assert_free(lied, "members that are not listed")


def test_members_with_long_chains_of_keys_do_not_hold_the_loop(lied: Lied) -> None:
    """Forty members show the same chain of 260 rotations: one can be right, the others are refused."""
    alice, lies = lied.alice, lied.lies
    mesh_id = json.loads((alice.root / "membership.json").read_text())["mesh_id"]
    keys = [make_identity() for _ in range(261)]
    chain = [
        make_rotation(older, newer, mesh_id=mesh_id, rotated_at_ms=1).to_dict()
        for older, newer in pairwise(keys)
    ]
    items = [listed(f"chained-{number}", keys[-1], rotations=chain) for number in range(40)]
    lied.tell([event("members_changed", items=items, gone=[], since=lies.version, version=lies.next_version)])
    until(lambda: '"chained-39"' in alice.log.read_text(), "the last one was refused")
    assert_free(lied, "chains")


def crowd(number: int) -> str:
    """As many members as a frame holds are online, other ones each time."""
    ids = [f"00000000-0000-4000-8000-{number:03d}{one:09d}" for one in range(130_000)]
    return event("presence", whole=number % 2 == 0, at=1, online=ids[:65_000], offline=ids[65_000:])


def test_a_presence_event_of_very_many_members_does_not_hold_the_loop(lied: Lied) -> None:
    """Neither one that replaces what was known, nor a change of it.

    The work is the same each time, and what new memory costs is not: the promise holds for the best of five.
    """
    tries: list[float] = []
    while len(tries) < 5 and (not tries or min(tries) > PROMISED_MS * SLOW_MACHINE):
        receiving = receiving_ms(lied)
        lied.tell(crowd(number) for number in range(8))
        notes = held(lied.made.root / "alice.held")
        tries.append(max((note["ms"] for note in notes), default=0.0) - 2 * receiving)
    print(f"presence of 130,000 members: {tries} ms more than twice the receipt of as many values")
    assert min(tries) <= PROMISED_MS * SLOW_MACHINE


def test_programs_are_answered_while_a_broker_floods_with_presence(lied: Lied) -> None:
    """Frames of a hundred members, and some that are as large as frames may be."""
    alice, times, receiving = lied.alice, list[float](), receiving_ms(lied)
    sign = about_a_member("member_clone_suspected")
    begun = suspected(alice) + 1
    lied.lies.frames = [[sign, *map(passing_by, range(10_000)), *map(crowd, range(4)), sign]]
    assert alice.send("#all", "go on")[0] == 202
    until(lambda: suspected(alice) >= begun, "the flood has begun")
    while suspected(alice) == begun:
        began = time.perf_counter()
        assert alice.request("GET", "/v1/health")[0] == 200
        times.append(time.perf_counter() - began)
    middle, longest = statistics.median(times) * 1000, max(times) * 1000
    print(f"health {middle:.0f} ms (max {longest:.0f}), {len(times)} times")
    assert len(times) >= 3
    assert_free(lied, "a flood of presence", beside_ms=2 * receiving)
